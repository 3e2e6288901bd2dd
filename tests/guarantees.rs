//! Every test that docs/guarantees.md names is there.

use std::fs;
use std::path::Path;

#[test]
fn the_tests_that_are_named_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/guarantees.md")).expect("docs/guarantees.md");
    let named: Vec<(&str, &str)> = page.split('`').filter_map(|code| code.split_once("::")).collect();
    assert!(named.len() > 30, "the page names tests as file::test");
    for (file, test) in named {
        let source = fs::read_to_string(root.join("tests").join(file).with_extension("rs"));
        let source = source.unwrap_or_else(|error| panic!("tests/{file}.rs: {error}"));
        assert!(source.contains(&format!("#[test]\nfn {test}()")), "tests/{file}.rs has no test {test}");
    }
    for path in page.split('`').filter(|code| code.ends_with(".rs") && !code.contains('*')) {
        assert!(root.join(path).exists(), "{path} is not there");
    }
}
