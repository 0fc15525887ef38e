//! docs/rules.md tells the truth: its examples are read, its refused examples are refused as it says.

use super::*;

const DOCUMENT: &str = include_str!("../../../../../docs/rules.md");

/// The blocks between fences: what stands behind the opening fence, and the text.
fn blocks() -> Vec<(&'static str, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in DOCUMENT.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(info), None) => open = Some((info, String::new())),
            (None, Some((_, text))) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

#[test]
fn the_examples_are_read_and_the_refused_ones_refused() {
    let (mut read, mut refused) = (0, 0);
    for (info, text) in blocks() {
        let mut words = info.split(' ');
        let format = match words.next() {
            Some("toml") => Format::Toml,
            Some("yaml") => Format::Yaml,
            Some("json") => Format::Json,
            _ => continue,
        };
        match words.next() {
            None => {
                let draft = parse(&text, format).unwrap_or_else(|p| panic!("{text}\n{p}"));
                draft.validate(&Limits::default()).unwrap_or_else(|p| panic!("{text}\n{p}"));
                read += 1;
            }
            Some(code) => {
                let found: Vec<_> = problems(&text, format).iter().map(|p| p.code).collect();
                assert_eq!(found, [code], "{text}");
                refused += 1;
            }
        }
    }
    assert!(read >= 4 && refused >= 3, "{read} examples, {refused} refused ones");
}

#[test]
fn the_mapping_table_is_right() {
    let mut rows = 0;
    for line in DOCUMENT.lines() {
        let cells: Vec<String> =
            line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
        let ["", filter, strip, prefix, source, target, ""] =
            cells.iter().map(String::as_str).collect::<Vec<_>>()[..]
        else {
            continue;
        };
        if filter == "topic" || filter.starts_with('-') {
            continue;
        }
        let clean = |text: &str| if text == "(none)" { String::new() } else { text.to_owned() };
        let rule = rule_with(&format!(
            "[[subscriptions]]\ntopic = \"{filter}\"\nstrip = \"{}\"\nprefix = \"{}\"\n",
            clean(strip),
            clean(prefix)
        ));
        let rule = render(&valid(&rule), &context()).unwrap().rule;
        let mapped = rule.receive(&topic(source)).map(|delivery| delivery.topic.to_string());
        assert_eq!(mapped.unwrap_or_default(), clean(target), "{line}");
        rows += 1;
    }
    assert!(rows >= 5, "{rows} rows");
}

#[test]
fn every_code_is_explained() {
    for code in CODES {
        assert!(DOCUMENT.contains(&format!("`{code}`")), "{code} is not explained in docs/rules.md");
    }
}
