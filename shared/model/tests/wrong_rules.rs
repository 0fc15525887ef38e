//! Thirty-eight wrong rule files, each with one mistake that people make: each error has its place and a way
//! out. The texts are in the snapshot, to be read by eye.

use std::fmt::Write as _;

use tidegate_model::rule::{Format, Limits, parse};

/// A list of lists of lists: eight lines of text, and a hundred million entries.
const TANGLED: &str = "name: &a [x, x, x, x, x, x, x, x, x, x]\n\
    b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n\
    c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\n\
    d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\n\
    e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]\n\
    f: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e, *e]\n\
    g: &g [*f, *f, *f, *f, *f, *f, *f, *f, *f, *f]\n\
    h: &h [*g, *g, *g, *g, *g, *g, *g, *g, *g, *g]\n";

/// What is wrong, the format, and the text.
const WRONG: [(&str, Format, &str); 38] = [
    ("an empty file", Format::Toml, ""),
    ("no TOML", Format::Toml, "name = camera-up\n"),
    (
        "a bracket too few",
        Format::Toml,
        "name = \"a\"\n[remote\nurl = \"mqtt://h\"\n[[forwards]]\ntopic = \"a\"\n",
    ),
    ("no YAML", Format::Yaml, "name: a\nremote: {url: mqtt://h\nforwards: [{topic: a}]\n"),
    ("a tab in YAML", Format::Yaml, "name: a\nremote:\n\turl: mqtt://h\nforwards:\n- topic: a\n"),
    (
        "a comma too many in JSON",
        Format::Json,
        "{\"name\":\"a\",\"remote\":{\"url\":\"mqtt://h\"},\"forwards\":[{\"topic\":\"a\"},]}",
    ),
    ("JSON that ends too early", Format::Json, "{\"name\":\"a\",\"remote\":{"),
    ("a list of lists of lists", Format::Yaml, TANGLED),
    ("a list, not a rule", Format::Json, "[]"),
    ("no name", Format::Toml, "[remote]\nurl = \"mqtt://h\"\n[[forwards]]\ntopic = \"a\"\n"),
    (
        "a name with a space",
        Format::Toml,
        "name = \"Camera up\"\n[remote]\nurl = \"mqtt://h\"\n[[forwards]]\ntopic = \"a\"\n",
    ),
    (
        "a reserved name",
        Format::Toml,
        "name = \"state\"\n[remote]\nurl = \"mqtt://h\"\n[[forwards]]\ntopic = \"a\"\n",
    ),
    (
        "the same key twice",
        Format::Toml,
        "name = \"a\"\nname = \"b\"\n[remote]\nurl = \"mqtt://h\"\n[[forwards]]\ntopic = \"a\"\n",
    ),
    ("no remote broker", Format::Toml, "name = \"a\"\n[[forwards]]\ntopic = \"a\"\n"),
    ("no URL", Format::Toml, "name = \"a\"\n[remote]\nusername = \"u\"\n[[forwards]]\ntopic = \"a\"\n"),
    (
        "an address without a scheme",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"broker.example:1883\"\n[[forwards]]\ntopic = \"a\"\n",
    ),
    (
        "TLS settings for a broker that is spoken to in clear",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"mqtt://broker.example\"\n[remote.tls]\nserver_name = \"b.example\"\n[[forwards]]\ntopic = \"a\"\n",
    ),
    (
        "a port that is none",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"mqtt://broker.example:99999\"\n[[forwards]]\ntopic = \"a\"\n",
    ),
    (
        "a password in the URL",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"mqtt://u:geheim@broker.example\"\n[[forwards]]\ntopic = \"a\"\n",
    ),
    (
        "a path in the URL",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"mqtt://broker.example/mqtt\"\n[[forwards]]\ntopic = \"a\"\n",
    ),
    (
        "a password without a user",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"mqtt://h\"\npassword = \"geheim\"\n[[forwards]]\ntopic = \"a\"\n",
    ),
    (
        "a password that was shown masked",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"mqtt://h\"\nusername = \"u\"\npassword = \"******\"\n[[forwards]]\ntopic = \"a\"\n",
    ),
    (
        "a misspelt field",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"mqtt://h\"\nclientid = \"x\"\n[[forwards]]\ntopic = \"a\"\n",
    ),
    (
        "a number for a text",
        Format::Yaml,
        "name: a\nremote:\n  url: mqtt://h\n  keep_alive: 60\nforwards:\n- topic: a\n",
    ),
    (
        "a keep-alive of a day",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"mqtt://h\"\nkeep_alive = \"24h\"\n[[forwards]]\ntopic = \"a\"\n",
    ),
    (
        "a unit that is none",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"mqtt://h\"\nkeep_alive = \"60 Sekunden\"\n[[forwards]]\ntopic = \"a\"\n",
    ),
    ("nothing to move", Format::Toml, "name = \"a\"\n[remote]\nurl = \"mqtt://h\"\n"),
    (
        "a hash in the middle",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"mqtt://h\"\n[[forwards]]\ntopic = \"plant/#/temperature\"\n",
    ),
    (
        "a plus within a level",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"mqtt://h\"\n[[forwards]]\ntopic = \"plant/line+/t\"\n",
    ),
    (
        "an own topic of Tidegate",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"mqtt://h\"\n[[forwards]]\ntopic = \"tidegate/#\"\n",
    ),
    (
        "a shared subscription",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"mqtt://h\"\n[[subscriptions]]\ntopic = \"$share/g/a\"\n",
    ),
    (
        "QoS 2",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"mqtt://h\"\n[[forwards]]\ntopic = \"a\"\nqos = 2\n",
    ),
    (
        "a topic twice",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"mqtt://h\"\n[[forwards]]\ntopic = \"a\"\n[[forwards]]\ntopic = \"a\"\n",
    ),
    (
        "a loop",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"mqtt://h\"\n[[forwards]]\ntopic = \"#\"\n[[subscriptions]]\ntopic = \"#\"\n",
    ),
    (
        "a strip that the filter does not begin with",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"mqtt://h\"\n[[forwards]]\ntopic = \"sensors/#\"\nstrip = \"sensor/\"\n",
    ),
    (
        "a wildcard in the mountpoint",
        Format::Toml,
        "name = \"a\"\nmountpoint = \"plant/+/\"\n[remote]\nurl = \"mqtt://h\"\n[[forwards]]\ntopic = \"a\"\n",
    ),
    (
        "a variable that nobody declares",
        Format::Toml,
        "name = \"a\"\nmountpoint = \"plant/{site}/\"\n[remote]\nurl = \"mqtt://h\"\n[[forwards]]\ntopic = \"a\"\n",
    ),
    (
        "a queue too small",
        Format::Toml,
        "name = \"a\"\n[remote]\nurl = \"mqtt://h\"\n[[forwards]]\ntopic = \"a\"\n[queue]\nmax_bytes = \"1KiB\"\n",
    ),
];

#[test]
fn each_wrong_rule_file_is_told_with_its_place_and_a_way_out() {
    let mut told = String::new();
    for (what, format, text) in WRONG {
        let problems = parse(text, format)
            .and_then(|draft| draft.validate(&Limits::default()))
            .expect_err(what)
            .in_file("camera.rule");
        writeln!(told, "{what}\n    {problems}\n").expect("a string takes everything");
        for problem in problems.iter() {
            assert!(!problem.help.is_empty() && !problem.what.is_empty(), "{what}: {problems}");
            assert!(problem.place.line.is_some(), "{what} has no place: {problems}");
        }
        assert!(!told.contains("geheim"), "{what} shows a password");
    }
    insta::assert_snapshot!(told);
}
