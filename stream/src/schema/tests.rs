use std::path::Path;

use serde_json::Value;

use super::*;

const PLAN: &str = "name = 'x'\n[stream]\nid = 'id'\ntime = 'at'\n[schemas]\nenvelope = 's.json'\n\
                    [[windows]]\noutput = 'rows'\nevery = '1s'\ngroup_by = ['key']\n";

/// Files of the suite that say something else than we want: formats are asserted here, and all schemas are of
/// draft 2020-12, whatever dialect they name.
const LEFT_OUT: [&str; 2] = ["format.json", "vocabulary.json"];
/// Formats that schemas of events are likely to use.
const FORMATS: [&str; 3] = ["date", "date-time", "uuid"];
/// Schemas that the suite serves from here are not known: nothing is fetched.
const REMOTE: &str = "localhost:1234";

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the suite is there");
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files
}

/// The JSON-Schema-Test-Suite for draft 2020-12 (<https://github.com/json-schema-org/JSON-Schema-Test-Suite>),
/// in the folder that `JSON_SCHEMA_SUITE` names.
#[test]
#[ignore = "needs the suite: scripts/schema_suite.sh fetches it"]
#[expect(
    clippy::disallowed_methods,
    reason = "a script names the folder, the test is run by nobody else"
)]
fn validation_agrees_with_the_test_suite_of_json_schema() {
    let folder = std::env::var("JSON_SCHEMA_SUITE").expect("JSON_SCHEMA_SUITE names a folder");
    let folder = Path::new(&folder);
    let formats = FORMATS.map(|name| folder.join(format!("optional/format/{name}.json")));
    let named = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap_or_default();
        LEFT_OUT.iter().all(|left_out| name != *left_out)
    };
    let files = files(folder).into_iter().filter(named).chain(formats);
    let plan = StreamPlan::parse(PLAN).unwrap();
    let (mut passed, mut remote, mut wrong) = (0, 0, Vec::new());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let groups: Vec<Value> = serde_json::from_str(&text).unwrap();
        for group in groups {
            let text = group["schema"].to_string();
            let tests = group["tests"].as_array().unwrap();
            let file = SchemaFile { name: "s.json".to_owned(), text: text.clone() };
            let named = format!("{}: {}", path.display(), group["description"]);
            let set = match SchemaSet::compile(&plan, &[file]) {
                Ok(set) => set,
                Err(_) if text.contains(REMOTE) => {
                    remote += tests.len();
                    continue;
                }
                Err(error) => {
                    wrong.push(format!("{named}: {error}"));
                    continue;
                }
            };
            for test in tests {
                let valid = set.check(&plan, &test["data"]).is_ok();
                if test["valid"] == valid {
                    passed += 1;
                } else {
                    wrong.push(format!("{named}: {}", test["description"]));
                }
            }
        }
    }
    println!("{passed} tests of the suite passed; {remote} need schemas from elsewhere");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(passed > 1_000, "only {passed}");
}
