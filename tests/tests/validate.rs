//! `scripts/validate.sh` compares results with the reference files of others.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::cluster::path_text;

/// The reports of a small result, as `cortado run coffee` writes them.
const RESULTS: [(&str, &str); 5] = [
    ("q1.csv", "transaction_id,final_amount\na1,75.00\na2,80.50\na3,112.25\n"),
    (
        "q2_quantity.csv",
        "year_month_created_at,item_name,sellings_qty\n2024-01,Latte,12\n2024-02,\"Tea, hot\",9\n",
    ),
    (
        "q2_revenue.csv",
        "year_month_created_at,item_name,profit_sum\n2024-01,Mocha,96.00\n2024-02,Mocha,108.50\n",
    ),
    ("q3.csv", "year_half_created_at,store_name,tpv\n2024-H1,Mill,1000.10\n2024-H1,Pier,20.00\n"),
    (
        "q4.csv",
        "store_name,user_id,birthdate,purchases_qty\nMill,1,1990-01-01,7\nMill,2,1991-02-02,5\n\
         Mill,3,1992-03-03,4\nPier,4,,2\n",
    ),
];

/// The same reports in other forms: other names and orders, other spellings of numbers, a byte
/// order mark, other line ends, and in q4 all customers with at least as many purchases as the
/// third.
const REFERENCE: [(&str, &str); 5] = [
    (
        "first.csv",
        "\u{feff}transaction_id,final_amount\r\na3,112.25\r\n\"a1\",75\r\na2,+080.5\r\n\r\n",
    ),
    (
        "second_a.csv",
        "year_month_created_at,item_name,sellings_qty\n2024-02,\"Tea, hot\",9.0\n2024-01,Latte,12",
    ),
    (
        "second_b.csv",
        "profit_sum,item_name,year_month_created_at\n108.5,Mocha,2024-02\n96.0,Mocha,2024-01\n",
    ),
    ("third.csv", "year_half_created_at,store_name,tpv\n2024-H1,Pier,20.0\n2024-H1,Mill,1000.1\n"),
    (
        "fourth.csv",
        "store_name,birthdate,purchases_qty\nMill,1990-01-01,7.0\nMill,2000-10-10,4\n\
         Mill,1991-02-02,5\nMill,1992-03-03,4\nMill,2001-11-11,4\nPier,,2\n",
    ),
];

/// Two folders to compare.
struct Folders(tempfile::TempDir);

impl Folders {
    fn new() -> Self {
        let folders = Self(tempfile::tempdir().expect("a temporary folder can be made"));
        for (side, files) in [("results", RESULTS), ("reference", REFERENCE)] {
            fs::create_dir(folders.0.path().join(side)).expect("the folder is new");
            for (name, text) in files {
                folders.write(&format!("{side}/{name}"), text);
            }
        }
        folders.write("results/receipt.json", "{\n  \"complete\": true\n}\n");
        folders
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).expect("the folder is there");
    }

    /// Replaces a text that occurs once in a file.
    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.0.path().join(name)).expect("the file is there");
        assert_eq!(text.matches(from).count(), 1, "'{from}' in {name}");
        self.write(name, &text.replace(from, to));
    }

    /// Compares the folders, and checks the exit code and texts in the output.
    fn expect(&self, code: i32, texts: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/validate.sh");
        let output = Command::new("bash")
            .arg(script)
            .args(["results", "reference"].map(|side| path_text(&self.0.path().join(side))))
            .output()
            .expect("there is a bash");
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8(printed).expect("it prints UTF-8");
        assert_eq!(output.status.code(), Some(code), "{printed}");
        for text in texts {
            assert!(printed.contains(text), "no '{text}' in\n{printed}");
        }
        printed
    }
}

#[test]
fn order_spelling_and_names_of_files_play_no_part() {
    let told = ["3 equal, 0 missing, 0 unexpected", "2 more", "level with the third", "equal: all"];
    let printed = Folders::new().expect(0, &told);
    assert!(!printed.contains("DIFFERENT"), "{printed}");
}

#[test]
fn each_difference_is_counted_and_shown() {
    let folders = Folders::new();
    folders.edit("results/q1.csv", "a2,80.50\n", "");
    folders.edit("results/q3.csv", "1000.10", "1000.11");
    let printed = folders.expect(
        1,
        &[
            "q1           2 equal, 1 missing, 0 unexpected",
            "missing     a2,80.5\n",
            "q3           1 equal, 1 missing, 1 unexpected",
            "missing     2024-H1,Mill,1000.1\n",
            "unexpected  2024-H1,Mill,1000.11\n",
            "DIFFERENT: q1 q3\n",
        ],
    );
    assert!(printed.contains("q2_quantity  2 equal, 0 missing, 0 unexpected\n"), "{printed}");
}

#[test]
fn a_row_that_stands_there_twice_counts_twice() {
    let folders = Folders::new();
    folders.edit("results/q1.csv", "a2,80.50\n", "a2,80.50\na2,80.50\n");
    folders.expect(1, &["3 equal, 0 missing, 1 unexpected", "unexpected  a2,80.5\n"]);
}

#[test]
fn many_differences_are_not_all_shown() {
    let folders = Folders::new();
    let rows: String = (0..1000).map(|row| format!("b{row:03},99.9\n")).collect();
    folders.write("results/q1.csv", &format!("transaction_id,final_amount\n{rows}"));
    let printed = folders.expect(1, &["0 equal, 3 missing, 1000 unexpected", "995 more"]);
    assert!(printed.lines().count() < 20, "{printed}");
}

#[test]
fn only_who_is_level_with_the_third_may_be_left_out() {
    let cases = [
        // Another customer with as many purchases as the third: the reference allows it.
        ("results/q4.csv", "1992-03-03,4", "2001-11-11,4", 0, "2 more"),
        // All customers with at least as many purchases as the third, as with `ties = "all"`.
        ("results/q4.csv", "Pier,4,", "Mill,8,2000-10-10,4\nMill,9,2001-11-11,4\nPier,4,", 0, "q4"),
        // One more than three of them, but not all.
        ("results/q4.csv", "Pier,4,", "Mill,8,2000-10-10,4\nPier,4,", 1, "missing     Mill,2001"),
        // The second customer is missing.
        ("results/q4.csv", "2,1991-02-02,5", "8,2000-10-10,4", 1, "missing     Mill,1991-02-02,5"),
        // A store with fewer than three customers must list all of them.
        ("reference/fourth.csv", "Pier,,2", "Pier,,2\nPier,1970-07-07,2", 1, "Pier,1970-07-07,2"),
        // A wrong number, which no customer has.
        ("results/q4.csv", "1992-03-03,4", "1992-03-03,3", 1, "unexpected  Mill,1992-03-03,3"),
        // A customer without a birthdate counts too.
        ("results/q4.csv", "Pier,4,,2\n", "", 1, "missing     Pier,,2"),
    ];
    for (file, from, to, code, told) in cases {
        let folders = Folders::new();
        folders.edit(file, from, to);
        folders.expect(code, &[told]);
    }
}

#[test]
fn what_is_missing_or_can_not_be_read_is_named() {
    let folders = Folders::new();
    fs::remove_file(folders.0.path().join("results/q3.csv")).unwrap();
    folders.expect(2, &["no file in", "results has the columns of q3", "store_name,tpv"]);

    let cases = [
        ("reference/first.csv", "final_amount", "amount", "first.csv lacks final_amount"),
        ("results/q1.csv", "a2,80.50", "a2,80.50,1", "q1.csv, line 3: 3 columns, expected 2"),
        ("results/q1.csv", "80.50", "8O.50", "q1.csv, line 3: '8O.50' is not a decimal number"),
        ("results/q1.csv", "a2", "\"a2", "q1.csv, line 3: a quote is never closed"),
    ];
    for (file, from, to, told) in cases {
        let folders = Folders::new();
        folders.edit(file, from, to);
        folders.expect(2, &[told]);
    }

    let folders = Folders::new();
    folders.write("reference/again.csv", REFERENCE[3].1);
    folders.expect(2, &["both", "again.csv", "third.csv", "keep one"]);
    fs::remove_dir_all(folders.0.path().join("reference")).unwrap();
    folders.expect(2, &["reference is no folder"]);
}
