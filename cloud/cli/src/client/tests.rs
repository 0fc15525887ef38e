//! The client against a scripted server: what each answer becomes.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

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
