use super::*;

const RULE: &str = "name = \"pump\"\n[remote]\nurl = \"mqtt://h\"\n[[forwards]]\ntopic = \"pumps/#\"\n";

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).unwrap();
}

#[test]
fn rules_of_every_format_are_read_and_everything_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.toml", RULE);
    write(dir.path(), "b.yaml", "name: b\nremote:\n  url: mqtt://h\nforwards:\n  - topic: b/#\n");
    write(dir.path(), "c.json", r#"{"name":"c","remote":{"url":"mqtt://h"},"forwards":[{"topic":"c/#"}]}"#);
    for other in [".a.toml.swp", ".hidden.toml", "README", "a.toml~", "notes.txt"] {
        write(dir.path(), other, "not a rule");
    }
    std::fs::create_dir(dir.path().join("d.toml")).unwrap();
    let files = read(dir.path()).unwrap().files;
    let names: Vec<_> = files.iter().map(|file| (file.name.as_str(), file.content.is_ok())).collect();
    assert_eq!(names, [("a.toml", true), ("b.yaml", true), ("c.json", true), ("d.toml", false)]);
    assert!(read(&dir.path().join("nowhere")).unwrap_err().contains("nowhere"));
}

#[test]
fn a_password_comes_from_its_file_and_is_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let rule = |password: &str| {
        format!(
            "name = \"pump\"\n[remote]\nurl = \"mqtt://h\"\nusername = \"u\"\n{password}[[forwards]]\ntopic = \"p/#\"\n"
        )
    };
    write(dir.path(), "a.toml", &rule("password_file = \"a.key\"\n"));
    let problem = |contents: &Contents| contents.files[0].content.clone().unwrap_err();
    let contents = read(dir.path()).unwrap();
    assert!(problem(&contents).contains("remote.password_file") && problem(&contents).contains("a.key"));
    assert_eq!(contents.named, BTreeSet::from([dir.path().join("a.key")]));
    write(dir.path(), "a.key", "hunter2\n");
    let contents = read(dir.path()).unwrap();
    assert_eq!(contents.files[0].content.as_ref().unwrap().secrets.password, Some(Secret::new("hunter2")));
    assert!(!format!("{contents:?}").contains("hunter2"));
    write(dir.path(), "a.toml", &rule("password = \"hunter3\"\npassword_file = \"a.key\"\n"));
    assert!(problem(&read(dir.path()).unwrap()).contains("both password and password_file"));
    // Without a user name it is refused in the words of the rule's own check.
    write(dir.path(), "a.toml", &rule("password_file = \"a.key\"\n").replace("username = \"u\"\n", ""));
    assert!(problem(&read(dir.path()).unwrap()).contains("user name"));
}

#[test]
fn too_many_files_and_too_large_ones_are_told() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "large.toml", &"#".repeat(MAX_RULE_TEXT_BYTES + 1));
    let files = read(dir.path()).unwrap().files;
    assert!(files[0].content.as_ref().unwrap_err().contains("large.toml"));
    for number in 0..=MAX_RULES_PER_EDGE {
        write(dir.path(), &format!("{number}.toml"), RULE);
    }
    assert!(read(dir.path()).unwrap_err().contains("at most 200"));
}

/// The next change; a look comes once a second, so this waits for a few of them.
async fn next(changes: &mut mpsc::Receiver<Change>) -> Change {
    tokio::time::timeout(Duration::from_secs(30), changes.recv())
        .await
        .expect("a change")
        .expect("it watches")
}

#[tokio::test]
async fn changes_are_noticed_once_and_a_lost_directory_is_no_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    write(&rules, "a.toml", RULE);
    let (sender, mut changes) = mpsc::channel(4);
    let reload = Arc::new(Reload::default());
    let watching =
        tokio::spawn(watch(rules.clone(), Some(read(&rules).unwrap()), Arc::clone(&reload), sender));
    let Change::Read { contents, again: false } = next(&mut changes).await else { panic!("the first look") };
    assert_eq!(contents.files.len(), 1);
    write(&rules, "b.toml", "name = ");
    let Change::Read { contents, again: false } = next(&mut changes).await else { panic!("b.toml") };
    assert!(contents.files[1].content.is_err());
    reload.wanted.notify_one();
    assert!(matches!(next(&mut changes).await, Change::Read { again: true, .. }));
    std::fs::rename(&rules, dir.path().join("away")).unwrap();
    assert!(matches!(next(&mut changes).await, Change::Unreadable(_)));
    std::fs::rename(dir.path().join("away"), &rules).unwrap();
    assert!(matches!(next(&mut changes).await, Change::Read { again: false, .. }));
    drop(changes);
    tokio::time::timeout(Duration::from_secs(30), watching).await.expect("it ends").expect("it ends well");
}
