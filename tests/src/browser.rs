//! A real browser without a window: Chromium, through its driver (WebDriver, W3C Recommendation).

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Cluster, Deadline};

/// Longest time for one step of the browser.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page. Dropping it ends the browser and its driver.
pub struct Browser {
    driver: Child,
    agent: ureq::Agent,
    session: String,
}

impl Browser {
    /// Starts one; `None`, and a line that says so, if the driver is not installed.
    ///
    /// # Panics
    /// If the driver is there and does not work.
    #[must_use]
    pub fn start(cluster: &Cluster) -> Option<Self> {
        let started = Command::new("chromedriver")
            .arg("--port=0")
            // Chromium writes its profile and crash reports there.
            .env("HOME", cluster.dir())
            .env("TMPDIR", cluster.dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut driver) = started else {
            eprintln!("chromedriver is not installed: the page is not tested in a browser");
            return None;
        };
        let stdout = driver.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let port = line.split("started successfully on port ").nth(1)?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.expect("the driver says its port");
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent: ureq::Agent = config.timeout_global(Some(PATIENCE)).build().into();
        let mut browser =
            Self { driver, agent, session: format!("http://127.0.0.1:{port}/session") };
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser.post("", &wanted);
        let id = session["sessionId"].as_str().expect("a session").to_owned();
        browser.session = format!("{}/{id}", browser.session);
        Some(browser)
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.agent.post(format!("{}{path}", self.session));
        let request = request.header("Content-Type", "application/json");
        let mut response = request.send(body.to_string()).expect("the driver answers");
        let text = response.body_mut().read_to_string().expect("the driver answers with text");
        let answer: Value = serde_json::from_str(&text).expect("the driver answers with JSON");
        assert!(answer["value"].get("error").is_none(), "{path}: {}", answer["value"]);
        answer["value"].clone()
    }

    /// Opens a page.
    ///
    /// # Panics
    /// If that fails.
    pub fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// Runs a script in the page: the body of a function, whose value is returned.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression of the page is true.
    ///
    /// # Panics
    /// If it is not within so many seconds.
    pub fn wait_until(&self, what: &str, seconds: u64, expression: &str) {
        let deadline = Deadline::after(seconds);
        while self.run(&format!("return Boolean({expression})")) != true {
            if !deadline.next_look() {
                let text = self.run("return document.body.innerText");
                panic!("waited {seconds} s in vain for {what}; the page says:\n{text}");
            }
        }
    }

    /// What the page wrote to its console since the last call, and violations of its policy.
    ///
    /// # Panics
    /// If the driver does not say.
    #[must_use]
    pub fn console(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({ "type": "browser" }));
        let lines = log.as_array().expect("a list").iter();
        lines.map(|line| format!("{}: {}", line["level"], line["message"])).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser. The driver may be gone already.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
