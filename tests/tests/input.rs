//! Bad input: rows that can't be read are counted and kept; a job that can't work is refused before
//! anything is sent.

use tests::cluster::{Cluster, Coffee, Shape, job_id, path_text};

#[test]
fn rejected_rows_are_counted_and_kept_and_stop_nothing() {
    let cluster = Cluster::up(3);
    let mut data = Coffee::new(Shape::TINY);
    // Rows with a missing column, with one too many, with needed values that can't be read (also in
    // a last row without a line end), and with bad values in columns that are not needed.
    let rows = "x1,1,1,,5,80.0,0.0,80.0\n\
                x2,1,1,,5,80.0,0.0,80.0,2024-01-03 10:00:00,more\n\
                x3,1,1,,5,80.0,0.0,a lot,2024-01-03 10:00:00\n\
                x4,1,1,,5,80.0,0.0,80.0,yesterday\n\
                x5,1,?,?,5,?,?,80.0,2024-01-03 10:00:00\n\
                \r\n\
                \"x\"\"6\",1,1,,5,80.0,0.0,81.5,2024-01-03 10:00:00\r\n\
                x7,,1,,5,80.0,0.0,80.0,2024-01-03 10:00:00";
    data.append("transactions/transactions_202401.csv", rows);
    data.append("stores/stores.csv", "99,\"Quay, \"\"North\"\"\nEnd\",s,1,c,s,0,0\n");
    let expected = data.answer();
    assert_eq!(expected.rows["transactions"], (1007, 5));
    assert!(expected.reports["q1.csv"].contains("\"x\"\"6\",81.50\n"));

    let job = job_id(1);
    let run = cluster.run_coffee(data.dir(), &job, "out").run().ok();
    assert!(run.stdout.contains("5 rejected"), "{}", run.stdout);
    data.check(&cluster, &job, "out");

    let rejects = cluster.cortado(&["rejects", &job, "--json"]).run().ok().json_lines();
    assert_eq!(rejects.len(), 5);
    for (id, reason) in [
        ("x1", "expected 9 columns, found 8"),
        ("x2", "expected 9 columns, found 10"),
        ("x3", "final_amount"),
        ("x4", "created_at"),
        ("x7", "store_id"),
    ] {
        let kept = rejects.iter().find(|reject| {
            reject["row"].as_str().is_some_and(|row| row.starts_with(&format!("{id},")))
        });
        let kept = kept.unwrap_or_else(|| panic!("{id} is not among {rejects:?}"));
        assert!(kept["reason"].as_str().unwrap().contains(reason), "{kept}");
        assert_eq!(kept["table"], "transactions");
        assert_eq!(kept["file"], "transactions/transactions_202401.csv");
    }
    // Line numbers count the header as line 1.
    let line = |id: &str| {
        let found = rejects.iter().find(|r| r["row"].as_str().unwrap().starts_with(id));
        found.unwrap()["line"].as_u64()
    };
    assert_eq!((line("x1"), line("x4")), (Some(502), Some(505)));
    let none = cluster.cortado(&["rejects", &job, "--table", "users"]).run().ok();
    assert_eq!(none.stdout.trim(), "no rejected rows");
    let _ = cluster.cortado(&["rejects", &job, "--table", "tea"]).run().exits(3, &["tea", "users"]);
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_sent() {
    let cluster = Cluster::up(1);
    let run = |data: &Coffee, plan: &str| {
        cluster.cortado(&["run", plan, "--data", &path_text(data.dir())]).run()
    };
    let data = Coffee::new(Shape::TINY);
    let users = data.dir().join("users/users_202401.csv");
    let text = std::fs::read_to_string(&users).unwrap();
    std::fs::write(&users, text.replacen("birthdate", "born", 1)).unwrap();
    let _ = run(&data, "coffee").exits(2, &["users/users_202401.csv", "birthdate"]);

    std::fs::write(&users, text).unwrap();
    std::fs::remove_dir_all(data.dir().join("menu_items")).unwrap();
    let _ = run(&data, "coffee").exits(2, &["menu_items"]);

    let plan = cluster.path("plan.toml");
    let plan_text = path_text(&plan);
    for (text, line, told) in [
        ("name = \"p\"\n[tables.users]\nfile = \"users/*.csv\"\n", 3, "file"),
        (
            "name = \"p\"\n[tables.users]\nfiles = \"users/*.csv\"\n[tables.users.columns]\n\
             user_id = \"integer\"\n",
            5,
            "integer",
        ),
        (
            "name = \"p\"\n[tables.users]\nfiles = \"users/*.csv\"\n[tables.users.columns]\n\
             user_id = \"int\"\n[[queries]]\noutput = \"o.csv\"\nfrom = \"users\"\n\
             where = \"user_id >\"\nselect = [\"user_id\"]\n",
            9,
            "an expression",
        ),
    ] {
        std::fs::write(&plan, text).unwrap();
        let refused = run(&data, &plan_text).exits(2, &[&format!("{plan_text}:{line}"), told]);
        assert!(refused.stdout.is_empty(), "no job id without a job");
    }
    assert_eq!(cluster.json(&["jobs"]).as_array().unwrap().len(), 0);
    let _ = cluster.cortado(&["status", &job_id(7)]).run().exits(3, &[&job_id(7)]);
    let _ = cluster.cortado(&["drain", "node-9"]).run().exits(3, &["node-9"]);
}

#[test]
fn verify_recomputes_and_notices_other_data() {
    let cluster = Cluster::up(3);
    let data = Coffee::new(Shape::TINY);
    let job = job_id(1);
    cluster.run_coffee(data.dir(), &job, "out").run().ok();
    let dir = path_text(data.dir());
    let verified = cluster.json(&["verify", &job, "--recompute", &dir]);
    assert_eq!((&verified["ok"], &verified["problems"]), (&true.into(), &serde_json::json!([])));
    assert_eq!(verified["compared"].as_array().unwrap().len(), 6, "{verified}");

    // Changes one digit of one amount; the length stays the same.
    let file = data.dir().join("transactions/transactions_202501.csv");
    let text = std::fs::read_to_string(&file).unwrap();
    let line = text.lines().find(|line| &line[line.len() - 8..line.len() - 6] == "12").unwrap();
    let fields: Vec<_> = line.split(',').collect();
    let digit = if fields[7].starts_with('1') { "2" } else { "1" };
    let tampered = line.replacen(
        &format!(",{},{}", fields[7], fields[8]),
        &format!(",{digit}{},{}", &fields[7][1..], fields[8]),
        1,
    );
    std::fs::write(&file, text.replacen(line, &tampered, 1)).unwrap();
    let noticed = cluster.cortado(&["verify", &job, "--recompute", &dir]).run();
    let _ = noticed.exits(4, &["does not verify", "q3.csv"]);
    // Without the dataset, `verify` finds no difference.
    cluster.cortado(&["verify", &job]).run().ok();
}
