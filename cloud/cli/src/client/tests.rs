//! The client against a scripted server: what each answer becomes.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use super::error::FieldProblem;
use super::*;
use crate::failure::{Exit, Failure};

/// A server that gives one answer to one request; returns its URL and, later, what was asked.
fn scripted(status: &str, content_type: &str, body: &str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nx-request-id: r-1\r\netag: \"7-abc\"\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            head.push(byte[0]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(head).unwrap()
    });
    (url, asked)
}

async fn get(status: &str, content_type: &str, body: &str) -> Result<Answer, ClientError> {
    let (url, asked) = scripted(status, content_type, body);
    let answer = Client::new(&url, Some("tga_secret".into())).unwrap().get("/summary").await;
    let asked = asked.join().unwrap();
    assert!(asked.starts_with("GET /api/v1/summary HTTP/1.1"), "{asked}");
    assert!(asked.to_lowercase().contains("authorization: bearer tga_secret"), "{asked}");
    answer
}

#[tokio::test]
async fn a_success_gives_body_and_entity_tag() {
    let answer = get("200 OK", "application/json", "{\"rules\":1}").await.unwrap();
    assert_eq!((answer.status, answer.etag.as_deref()), (200, Some("\"7-abc\"")));
    assert_eq!(answer.body["rules"], 1);
}

#[tokio::test]
async fn a_problem_becomes_a_failure_with_its_exit_code_and_all_its_fields() {
    let body = r#"{"title":"Invalid","detail":"the rule cannot be saved","code":"INVALID_CONFIG","errors":[
        {"pointer":"/forwards/0/topic","line":12,"column":9,"detail":"'#' must be last","help":"end the filter there"}]}"#;
    let table = [
        ("404 Not Found", Exit::NotFound),
        ("401 Unauthorized", Exit::Denied),
        ("409 Conflict", Exit::Conflict),
        ("412 Precondition Failed", Exit::Conflict),
        ("422 Unprocessable Content", Exit::Failed),
    ];
    for (status, exit) in table {
        let error = get(status, "application/problem+json", body).await.unwrap_err();
        let failure = Failure::from(error);
        assert_eq!(failure.exit(), exit, "{status}");
        let text = failure.text().unwrap();
        assert!(text.contains("12:9 forwards[0].topic: '#' must be last — end the filter there"), "{text}");
        assert!(text.contains("INVALID_CONFIG") && text.contains("r-1"), "{text}");
    }
}

#[tokio::test]
async fn an_answer_that_no_tidegate_gives_is_told_as_such() {
    for (status, kind, body) in
        [("200 OK", "text/html", "<html>"), ("502 Bad Gateway", "text/html", "<html>")]
    {
        let error = get(status, kind, body).await.unwrap_err();
        assert!(matches!(error, ClientError::NotOurs { .. }), "{error}");
        assert!(error.to_string().contains("not as a Tidegate controller does"), "{error}");
    }
}

/// A server that breaks so many connections, and answers the next one; gives what was asked each time.
fn breaking(times: usize) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let mut heads = Vec::new();
        for number in 0..=times {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                head.push(byte[0]);
            }
            heads.push(String::from_utf8(head).unwrap().to_lowercase());
            if number == times {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
                    .unwrap();
            }
        }
        heads
    });
    (url, asked)
}

fn key_of(head: &str) -> Option<&str> {
    head.lines().find_map(|line| line.strip_prefix("idempotency-key: "))
}

#[tokio::test]
async fn a_post_whose_connection_broke_is_sent_again_under_its_key_and_once_only() {
    let (url, asked) = breaking(1);
    let client = Client::new(&url, None).unwrap();
    client.send(Call::post("/edges", &json!({}))).await.unwrap();
    let heads = asked.join().unwrap();
    assert!(key_of(&heads[0]).is_some_and(|key| key.len() == 36), "{heads:?}");
    assert_eq!(key_of(&heads[0]), key_of(&heads[1]));

    let (url, _asked) = breaking(2);
    let failed = Client::new(&url, None).unwrap().get("/summary").await.unwrap_err();
    assert!(matches!(failed, ClientError::Unreachable { .. }), "{failed}");
    // Whether a DELETE was done is not known: it is not sent again.
    let (url, asked) = breaking(1);
    let client = Client::new(&url, None).unwrap();
    client.send(Call::new(Method::DELETE, "/rules/a")).await.unwrap_err();
    client.get("/summary").await.unwrap();
    let heads = asked.join().unwrap();
    assert!(heads[0].starts_with("delete") && heads[1].starts_with("get"), "{heads:?}");
}

#[test]
fn what_does_not_fit_an_edge_names_the_edge() {
    let field = FieldProblem {
        pointer: "/vars/site".into(),
        edge: Some("gw-7".into()),
        detail: "it is not a variable of the rule".into(),
        ..Default::default()
    };
    assert_eq!(
        field.in_file(Some("a.toml")),
        "a.toml: on edge gw-7: vars.site: it is not a variable of the rule"
    );
}

#[tokio::test]
async fn how_to_sign_in_is_said_once() {
    let body = r#"{"detail":"no token was sent","next":"send the administrator's token (file admin.token)","code":"UNAUTHENTICATED"}"#;
    let error = get("401 Unauthorized", "application/problem+json", body).await.unwrap_err().to_string();
    assert_eq!(error.matches("admin.token").count(), 1, "{error}");
    assert!(error.starts_with("no token was sent. Sign in with --token"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_ends_with_8_and_names_url_and_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let failure = Failure::from(Client::new(&url, None).unwrap().get("/summary").await.unwrap_err());
    assert_eq!(failure.exit(), Exit::Unreachable);
    let text = failure.text().unwrap();
    assert!(
        text.contains(&url) && text.contains("connection refused") && text.contains("tidegate serve"),
        "{text}"
    );
}

#[test]
fn urls_that_cannot_be_used_say_why() {
    let why = |url: &str| Client::new(url, None).unwrap_err().to_string();
    assert!(why("https://cloud").contains("https is not supported yet"));
    assert!(why("ftp://cloud").contains("http://"));
    assert!(why("http://me:pw@cloud").contains("--token") && !why("http://me:pw@cloud").contains("BadToken"));
    assert!(why("cloud").contains("http://127.0.0.1:7180"));
}

#[test]
fn debug_output_shows_no_token() {
    let client = Client::new("http://127.0.0.1:1", Some("tga_secret".into())).unwrap();
    assert!(!format!("{client:?}").contains("tga_secret"));
}

#[test]
fn path_segments_and_queries_are_escaped() {
    assert_eq!(segment("a/b ü"), "a%2Fb%20%C3%BC");
    assert_eq!(with_query("/x", &[("note", "a&b"), ("q", "1")]), "/x?note=a%26b&q=1");
}
