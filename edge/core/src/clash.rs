//! Rules of one edge that would throw each other off a remote broker: which of those that files ask for are refused.
//!
//! Whoever logs in with a client id that is in use disconnects the other one (MQTT-3.1.4-2), and is disconnected in turn. The
//! comparison is the model's, which the cloud uses for what it places on an edge.

use std::collections::BTreeMap;

use tidegate_model::ids::RuleName;
use tidegate_model::rule::{ClientIdClash, Login, client_id_clash};

/// A rule as a file asks for it.
#[derive(Debug)]
pub(crate) struct Wish {
    /// As what it would log in.
    pub(crate) login: Login,
    /// As what the rule goes on if it is refused; `None`: nothing of it runs.
    pub(crate) held: Option<Login>,
}

/// The wishes that are refused, by the name of their rule. `fixed` are those that log in whatever is wished,
/// and do not give way; of two wishes the earlier one counts, so those that are carried out already stand before the others.
///
/// The files are compared as a whole: two of them may exchange their client ids. One that is refused goes on as it was,
/// under the client id that it had, which may refuse another one; so it is repeated until nothing more is refused, once for
/// each wish at the most.
pub(crate) fn refused(fixed: &[Login], wishes: &[Wish]) -> BTreeMap<RuleName, ClientIdClash> {
    let mut refused: BTreeMap<RuleName, ClientIdClash> = BTreeMap::new();
    loop {
        let stay = wishes.iter().filter(|wish| refused.contains_key(&wish.login.rule));
        let come = wishes.iter().filter(|wish| !refused.contains_key(&wish.login.rule));
        let stay = fixed.iter().chain(stay.filter_map(|wish| wish.held.as_ref()));
        let all = stay.chain(come.clone().map(|wish| &wish.login));
        let is_wish = |name: &RuleName| come.clone().any(|wish| wish.login.rule == *name);
        let clash = client_id_clash(all).into_iter().find(|clash| is_wish(&clash.second));
        // One at a time where one could make room for the next: the first that is refused decides.
        let Some(clash) = clash else { return refused };
        refused.insert(clash.second.clone(), clash);
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::rule::BrokerAddress;

    use super::*;

    fn rule(name: &str, client_id: &str) -> Login {
        Login {
            rule: RuleName::new(name).unwrap(),
            addresses: vec![BrokerAddress { host: "h".to_owned(), port: 1883 }],
            client_id: client_id.to_owned(),
        }
    }

    /// A file of which nothing runs yet, and one that changes what runs.
    fn new(name: &str, client_id: &str) -> Wish {
        Wish { login: rule(name, client_id), held: None }
    }

    fn change(name: &str, from: &str, to: &str) -> Wish {
        Wish { login: rule(name, to), held: Some(rule(name, from)) }
    }

    fn names(refused: &BTreeMap<RuleName, ClientIdClash>) -> Vec<(&str, &str)> {
        refused.iter().map(|(name, clash)| (name.as_str(), clash.first.as_str())).collect()
    }

    #[test]
    fn the_earlier_wish_counts_and_what_is_fixed_does_not_give_way() {
        assert_eq!(names(&refused(&[], &[new("a", "x"), new("b", "y")])), []);
        assert_eq!(names(&refused(&[], &[new("a", "x"), new("b", "x")])), [("b", "a")]);
        assert_eq!(
            names(&refused(&[], &[new("a", "x"), new("b", "x"), new("c", "x")])),
            [("b", "a"), ("c", "a")]
        );
        assert_eq!(names(&refused(&[rule("cloud", "x")], &[new("a", "x")])), [("a", "cloud")]);
        // Two that cannot give way have been so before.
        assert_eq!(names(&refused(&[rule("p", "x"), rule("q", "x")], &[new("a", "y")])), []);
    }

    #[test]
    fn files_that_exchange_their_client_ids_are_taken_up() {
        assert_eq!(names(&refused(&[], &[change("a", "x", "y"), change("b", "y", "x")])), []);
    }

    #[test]
    fn what_is_refused_keeps_its_client_id_from_others() {
        // b may not have y, so it stays at x, so a may not have x.
        let wishes = [change("a", "z", "x"), change("b", "x", "y")];
        assert_eq!(names(&refused(&[rule("cloud", "y")], &wishes)), [("a", "b"), ("b", "cloud")]);
        // One of which nothing runs yet keeps nothing.
        let wishes = [change("a", "z", "x"), new("b", "y")];
        assert_eq!(names(&refused(&[rule("cloud", "y")], &wishes)), [("b", "cloud")]);
    }

    #[test]
    fn one_that_is_refused_for_one_that_is_refused_itself_is_looked_at_again() {
        // b clashes with a, and a is refused: of the new rules only what may run counts.
        let wishes = [new("a", "x"), new("b", "x")];
        assert_eq!(names(&refused(&[rule("cloud", "x")], &wishes)), [("a", "cloud"), ("b", "cloud")]);
    }
}
