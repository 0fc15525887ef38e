//! Backups of controllers that do not run, from directory to directory.

use std::path::Path;

use tidegate_cloud_core::{Meta, Write};

use super::*;

fn at(path: &Path) -> Settings {
    Settings::with_data_dir(path.to_owned())
}

async fn controller(dir: &Path, epoch: u64) {
    let settings = at(dir);
    let dir = DataDir::open(dir).unwrap();
    let store = open_store(&settings, &dir).await.unwrap();
    let edge = serde_json::json!({
        "id": "gw-1", "created": 1, "credential": "x", "facts": {"epoch": 1, "alive": true, "last_seen": null, "agent": null, "limits": null},
    });
    let edge = Write::PutEdge(serde_json::from_value(edge).unwrap());
    store.apply(vec![Write::PutMeta(Meta { epoch }), edge]).await.unwrap();
}

async fn exported(dir: &Path) -> Result<Vec<u8>, RunError> {
    let mut all = Vec::new();
    export(&at(dir), |chunk| {
        all.extend_from_slice(chunk);
        Ok::<_, ()>(())
    })
    .await?
    .unwrap();
    Ok(all)
}

#[tokio::test]
async fn what_was_exported_fills_an_empty_directory_and_no_other() {
    let tmp = tempfile::tempdir().unwrap();
    let (one, two, file) = (tmp.path().join("one"), tmp.path().join("two"), tmp.path().join("b.jsonl"));
    controller(&one, 7).await;
    let all = exported(&one).await.unwrap();
    std::fs::write(&file, &all).unwrap();
    assert_eq!(import(&at(&two), &file).await.unwrap().counts.edges, 1);
    assert_eq!(exported(&two).await.unwrap(), all);
    assert!(!two.join(IMPORT_DIR).exists());

    let error = import(&at(&two), &file).await.unwrap_err().to_string();
    assert!(error.contains("edges: 1,") && error.contains("replaces nothing"), "{error}");
    assert_eq!(exported(&two).await.unwrap(), all, "it is as it was");

    let _in_use = DataDir::open(&one).unwrap();
    for error in [
        exported(&one).await.unwrap_err().to_string(),
        import(&at(&one), &file).await.unwrap_err().to_string(),
    ] {
        assert!(error.contains("in use by another tidegate"), "{error}");
    }
}

#[tokio::test]
async fn an_empty_store_and_the_rest_of_an_import_that_was_killed_are_replaced() {
    let tmp = tempfile::tempdir().unwrap();
    let (one, two, file) = (tmp.path().join("one"), tmp.path().join("two"), tmp.path().join("b.jsonl"));
    controller(&one, 7).await;
    std::fs::write(&file, exported(&one).await.unwrap()).unwrap();
    drop(open_store(&at(&two), &DataDir::open(&two).unwrap()).await.unwrap());
    drop(Sled::open(two.join(IMPORT_DIR), 16).await.unwrap());
    import(&at(&two), &file).await.unwrap();
    assert_eq!(exported(&two).await.unwrap(), std::fs::read(&file).unwrap());
}

#[tokio::test]
async fn a_spoilt_file_leaves_no_trace_and_a_wrong_directory_is_told() {
    let tmp = tempfile::tempdir().unwrap();
    let (one, two, file) = (tmp.path().join("one"), tmp.path().join("two"), tmp.path().join("b.jsonl"));
    controller(&one, 7).await;
    let all = exported(&one).await.unwrap();
    std::fs::write(&file, &all[..all.len() - 9]).unwrap();
    let error = import(&at(&two), &file).await.unwrap_err().to_string();
    assert!(error.contains("it was cut"), "{error}");
    assert!(!two.exists(), "nothing is made before the file is known to be whole");
    let error = import(&at(&two), &tmp.path().join("none")).await.unwrap_err().to_string();
    assert!(error.contains("no such file or directory") && !error.contains("os error"), "{error}");
    let error = exported(&two).await.unwrap_err().to_string();
    assert!(error.contains("there is no store in") && !two.exists(), "{error}");
}
