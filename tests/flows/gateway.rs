//! The gateway in this process, as `serve` starts it, on one of the two engines.
//!
//! Not here: what it is told over the API (`crm`).

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use mailweave::{
    app::{Running, audit},
    config::{Config, DomainName},
    net, telemetry,
};
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::{Connection as _, PgConnection, Row as _, SqliteConnection};
use tokio::runtime::Runtime;

use crate::{
    crm::Crm,
    support::{
        PATIENCE,
        clients::SmtpClient,
        postgres::{Database, Postgres},
        store::Engine,
        tls::Authority,
        wait_for,
    },
};

pub const CAPTURE: &str = "bcc.example.test";
pub const REPLY: &str = "reply.example.test";
pub const HOSTNAME: &str = "gateway.example.test";
const ADMIN_KEY: &str = "the-administrators-key-of-these-tests";

pub struct Gateway {
    running: Option<Running>,
    /// Runs the gateway, and whatever else of a test is asynchronous.
    pub runtime: Runtime,
    config: Config,
    database: Option<Database<'static>>,
    directory: tempfile::TempDir,
}

/// Where metrics go once a test records them: there is one recorder in a process.
static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Has this process record metrics.
pub fn record_metrics() {
    METRICS.get_or_init(|| telemetry::init_metrics().unwrap());
}

fn metrics() -> String {
    METRICS.get().map(telemetry::render).unwrap_or_default()
}

impl Gateway {
    /// Starts one that trusts this authority, with what `adjust` changes of the tests' own configuration.
    pub fn start(engine: Engine, authority: &Authority, adjust: impl FnOnce(&mut Config)) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_env("MAILWEAVE_LOG");
        // Other tests of this process may have set it up.
        drop(tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init());
        net::install_provider();
        let directory = tempfile::Builder::new().prefix("mw-gateway-").tempdir().unwrap();
        let database = engine.database();
        let mut config = config(&directory.path().join("data"), authority, directory.path());
        if let Some(database) = &database {
            database.keep_data_of(&mut config, directory.path());
        }
        adjust(&mut config);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut gateway = Self { running: None, runtime, config, database, directory };
        gateway.resume();
        gateway
    }

    fn resume(&mut self) {
        let started = Running::start(&self.config, Arc::new(metrics));
        self.running = Some(self.runtime.block_on(started).unwrap());
    }

    /// Finishes the work in hand and stops, as after SIGTERM.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            let stopped = async { tokio::time::timeout(PATIENCE, running.stop()).await };
            self.runtime.block_on(stopped).expect("the gateway stops in time");
        }
    }

    /// Stops, and starts with another configuration. Ports change.
    pub fn restart(&mut self, adjust: impl FnOnce(&mut Config)) {
        self.stop();
        adjust(&mut self.config);
        self.resume();
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the gateway runs")
    }

    pub fn mx(&self) -> SocketAddr {
        self.running().addresses.mx[0]
    }

    /// STARTTLS.
    pub fn submission(&self) -> SocketAddr {
        self.running().addresses.submission[0]
    }

    /// A client of that listener, TLS on, not logged in.
    pub fn submission_client(&self, authority: &Authority) -> SmtpClient {
        let mut client = SmtpClient::connect(self.submission());
        client.starttls(authority);
        client
    }

    /// TLS from the first octet.
    pub fn submissions(&self) -> SocketAddr {
        self.running().addresses.submissions[0]
    }

    /// What marks mail that we relayed.
    pub fn loop_key(&self) -> [u8; 32] {
        self.running().gateway.settings.loop_key
    }

    /// Where everything lies that the gateway has written to disk, its database included.
    pub fn places(&self) -> Vec<PathBuf> {
        // PostgreSQL says a commit is done, as the tests start it, before its log has left memory.
        if let Some(database) = &self.database {
            database.run("checkpoint");
        }
        let mut places = vec![self.directory.path().to_owned()];
        places.extend(self.database.as_ref().map(|_| Postgres::shared().server.dir().to_owned()));
        places
    }

    /// Where the API and its pages are.
    pub fn http(&self) -> SocketAddr {
        self.running().addresses.http.expect("the API listens")
    }

    /// The API as the instance's administrator uses it, for the workspace of this name.
    pub fn crm(&self, slug: &str) -> Crm {
        Crm::new(self.http(), ADMIN_KEY, slug, self.runtime.handle().clone())
    }

    /// Waits until no job is left that could be done now.
    pub fn settle(&self) {
        wait_for("the work in hand to be done", PATIENCE, || {
            self.count(&format!(
                "select count(*) from jobs where leased_until is not null or run_at <= {}",
                jiff::Timestamp::now().as_microsecond()
            )) == 0
        });
    }

    /// Lets the time pass for every job that waits for it: a minute after a deferral is long for a test.
    pub fn hasten(&self) {
        self.execute("update accounts set rests_until = null");
        self.hasten_jobs();
    }

    /// The same, but accounts that rest do so still.
    pub fn hasten_jobs(&self) {
        self.execute("update jobs set run_at = 0 where leased_until is null");
        self.running().gateway.queue.nudge();
    }

    /// What `/metrics` shows, as text.
    pub fn metrics(&self) -> String {
        let http = self.http();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        self.runtime.block_on(async {
            client.get(format!("http://{http}/metrics")).send().await.unwrap().text().await.unwrap()
        })
    }

    /// What an audit of the store finds wrong.
    pub fn audit(&self) -> Vec<String> {
        self.report().lines.into_iter().flat_map(|line| line.found).collect()
    }

    fn report(&self) -> audit::Report {
        let gateway = &self.running().gateway;
        self.runtime.block_on(audit::audit(&gateway.store, &gateway.settings.ours)).unwrap()
    }

    /// The tables of PostgreSQL that hold a word, be it in bytes.
    pub fn tables_holding(&self, word: &str) -> Vec<String> {
        let Some(database) = &self.database else { return Vec::new() };
        let hex: String = word.bytes().map(|byte| format!("{byte:02x}")).collect();
        let tables = database.run("select tablename from pg_tables where schemaname = current_schema()");
        assert!(tables.lines().count() > 20, "{tables}");
        let holds = |table: &&str| {
            let found = format!(
                "select count(*) from {table} t where t::text ilike '%{word}%' or t::text like '%{hex}%'"
            );
            database.run(&found).trim() != "0"
        };
        tables.lines().filter(holds).map(str::to_owned).collect()
    }

    /// Does to the database what no caller can, as a failing disk or a crash at the wrong moment would.
    pub fn execute(&self, statement: &'static str) {
        self.do_to_database(statement);
    }

    /// The same with a number at the statement's end.
    pub fn execute_with(&self, statement: &'static str, number: i64) {
        self.do_to_database(&format!("{statement}{number}"));
    }

    fn do_to_database(&self, statement: &str) {
        match &self.database {
            Some(database) => drop(database.run(statement)),
            None => self.runtime.block_on(async {
                let statement = sqlx::AssertSqlSafe(statement);
                sqlx::query(statement).execute(&mut self.sqlite().await).await.unwrap();
            }),
        }
    }

    /// Every row of every table, as text, without what every moment of following an account changes.
    pub fn dump(&self) -> Vec<String> {
        const MOMENTARY: [&str; 4] = ["last_checked_at", "lease_owner", "lease_until", "checked_at"];
        let quoted =
            |names: &[&str]| names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
        let Some(database) = &self.database else {
            return self.runtime.block_on(async {
                let mut connection = self.sqlite().await;
                let columns = format!(
                    "select t.name, group_concat('quote(' || c.name || ')', '||'',''||') from sqlite_master t, \
                     pragma_table_info(t.name) c where t.type = 'table' and c.name not in ({}) group by t.name",
                    quoted(&MOMENTARY)
                );
                let mut lines = Vec::new();
                for table in sqlx::query(sqlx::AssertSqlSafe(columns)).fetch_all(&mut connection).await.unwrap() {
                    let (name, values): (String, String) = (table.get(0), table.get(1));
                    let rows = sqlx::AssertSqlSafe(format!("select {values} from {name} order by 1"));
                    let rows = sqlx::query(rows).fetch_all(&mut connection).await.unwrap();
                    lines.extend(rows.iter().map(|row| format!("{name}: {}", row.get::<String, _>(0))));
                }
                lines
            });
        };
        let tables = database.run("select tablename from pg_tables where schemaname = current_schema()");
        let rows = tables.lines().map(|table| {
            let without = MOMENTARY.map(|name| format!("- '{name}'")).join(" ");
            let rows =
                database.run(&format!("select (to_jsonb(t) {without})::text from {table} t order by 1"));
            format!("{table}: {rows}")
        });
        rows.collect()
    }

    /// Where the gateway keeps what it does not keep in a database.
    pub fn data_dir(&self) -> &std::path::Path {
        &self.config.node.data_dir
    }

    /// A connection of a test's own to the database, where that is PostgreSQL.
    pub fn connection(&self) -> PgConnection {
        let url = self.database.as_ref().expect("a database with connections").url();
        self.runtime.block_on(PgConnection::connect(&url)).unwrap()
    }

    /// Runs a statement on it.
    ///
    /// # Errors
    /// The database's.
    pub fn try_on(&self, connection: &mut PgConnection, statement: &'static str) -> Result<(), sqlx::Error> {
        self.runtime.block_on(sqlx::query(statement).execute(connection)).map(drop)
    }

    /// What a statement counts.
    pub fn count(&self, statement: &str) -> i64 {
        match &self.database {
            Some(database) => database.run(statement).parse().unwrap(),
            None => self.runtime.block_on(async {
                let statement = sqlx::AssertSqlSafe(statement);
                sqlx::query(statement).fetch_one(&mut self.sqlite().await).await.unwrap().get(0)
            }),
        }
    }

    /// Rows as text, columns divided by "|".
    fn rows(&self, statement: &'static str) -> Vec<String> {
        match &self.database {
            Some(database) => database.run(statement).lines().map(str::to_owned).collect(),
            None => self.runtime.block_on(async {
                let rows = sqlx::query(statement).fetch_all(&mut self.sqlite().await).await.unwrap();
                let column = |row: &sqlx::sqlite::SqliteRow, at: usize| {
                    let number = row.try_get_unchecked::<Option<i64>, _>(at).ok().flatten();
                    let text = row.try_get_unchecked::<Option<String>, _>(at).ok().flatten();
                    text.or(number.map(|number| number.to_string())).unwrap_or_default()
                };
                let line = |row| (0..5).map(|at| column(row, at)).collect::<Vec<_>>().join("|");
                rows.iter().map(line).collect()
            }),
        }
    }

    async fn sqlite(&self) -> SqliteConnection {
        let file = self.config.node.data_dir.join("mailweave.db");
        SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let jobs = self.rows("select kind, attempt, run_at, leased_until, body from jobs");
            eprintln!("--- jobs left\n{}", jobs.join("\n"));
            return;
        }
        // Behind whatever a test has done: for whoever changes the rules of the audit, or what is stored.
        if std::env::var_os("MAILWEAVE_AUDIT_ALL").is_some() && self.running.is_some() {
            let report = self.report();
            let found: Vec<_> = report.lines.iter().filter(|line| !line.found.is_empty()).collect();
            assert!(report.is_clean(), "the audit behind the test: {found:#?}");
        }
        self.stop();
    }
}

fn config(data_dir: &std::path::Path, authority: &Authority, directory: &std::path::Path) -> Config {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let certificate = authority.issue(directory, &["localhost", "127.0.0.1"]);
    let mut config = Config::default();
    config.node.data_dir = data_dir.to_owned();
    config.domains.capture = DomainName::parse(CAPTURE);
    config.domains.reply = DomainName::parse(REPLY);
    config.smtp.hostname = DomainName::parse(HOSTNAME);
    config.smtp.mx.listen = vec![loopback];
    // The tests' mail servers stand for the users' own, except where who sent what is what is tested.
    config.smtp.mx.trusted_peers = Some(vec!["127.0.0.0/8".parse().unwrap()]);
    config.smtp.submission.listen = vec![loopback];
    config.smtp.submissions.listen = vec![loopback];
    config.http.listen = loopback;
    config.http.admin_key = Some(ADMIN_KEY.into());
    config.tls.certificate = Some(certificate.chain);
    config.tls.private_key = Some(certificate.key);
    config.egress.allow = vec!["127.0.0.0/8".parse().unwrap()];
    config.egress.ca_file = Some(authority.write_pem(directory));
    // The defaults are kind to providers; here nobody should have to wait.
    config.sync.poll = Duration::from_millis(200);
    config.outbound.sent_copy_wait = Duration::from_secs(1);
    config.outbound.reconcile = vec![Duration::from_millis(500), Duration::from_secs(1)];
    config
}
