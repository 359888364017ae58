//! Reads a page back, for tests: as the OpenMetrics specification demands.

use std::collections::{BTreeMap, HashSet};

/// A family's type, and its samples: name, labels, value.
pub(super) type Families = BTreeMap<String, (String, Vec<(String, BTreeMap<String, String>, f64)>)>;

/// Reads a page as the OpenMetrics specification demands, and fails where it is not followed.
pub(super) fn parse(page: &str) -> Families {
    let body = page.strip_suffix("# EOF\n").expect("the page ends with EOF");
    let mut families = Families::new();
    let (mut current, mut seen) = (String::new(), HashSet::new());
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let (word, rest) = rest.split_once(' ').expect("a word");
            let (name, value) = rest.split_once(' ').expect("a name");
            if name != current {
                assert!(families.insert(name.to_owned(), Default::default()).is_none(), "{name} comes twice");
                current = name.to_owned();
            }
            match word {
                "TYPE" => value.clone_into(&mut families.get_mut(name).unwrap().0),
                "UNIT" => assert!(name.ends_with(&format!("_{value}")), "{name} is not in {value}"),
                "HELP" => assert!(!value.is_empty()),
                other => panic!("{other} is no word of a comment"),
            }
            continue;
        }
        let (name, labels, value) = sample(line);
        assert!(seen.insert((name.clone(), labels.clone())), "twice: {line}");
        let (kind, samples) = families.get_mut(&current).expect("a family before its samples");
        let suffix = name.strip_prefix(&current).expect("a sample of the family");
        match kind.as_str() {
            "counter" => assert_eq!(suffix, "_total"),
            "gauge" => assert_eq!(suffix, ""),
            "histogram" => assert!(["_sum", "_count", "_bucket"].contains(&suffix), "{line}"),
            other => panic!("{other} is no type of ours"),
        }
        assert!(kind == "gauge" || value >= 0.0);
        samples.push((suffix.to_owned(), labels, value));
    }
    families
}

fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').expect("the end of the labels")),
        None => (series, ""),
    };
    assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
    let pair = |pair: &str| {
        let (key, value) = pair.split_once("=\"").expect("a label");
        (key.to_owned(), value.strip_suffix('"').expect("the end of a label").to_owned())
    };
    let labels = labels.split(',').filter(|text| !text.is_empty()).map(pair).collect();
    (name.to_owned(), labels, value.parse().expect("a number"))
}
