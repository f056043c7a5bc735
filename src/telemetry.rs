//! What the gateway tells about itself: log lines on stderr, metrics in Prometheus's format.
//!
//! Not here: what is logged or counted. Whoever does the work says so, under one of the names below.

use std::{
    io::{self, IsTerminal as _},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{
    EnvFilter, fmt::MakeWriter, layer::SubscriberExt as _, registry::LookupSpan, util::SubscriberInitExt as _,
};

use crate::config::{LogFormat, LogLevel};

/// Overrides the configured level: `info,mailweave::imap=debug`.
const LOG_VARIABLE: &str = "MAILWEAVE_LOG";

/// Lines waiting for stderr. When a reader of our stderr stalls, further lines are dropped and counted: logging never
/// holds mail up.
const LINES_WAITING_MAX: usize = 8192;
/// Longest line kept, in octets; a peer's text must not fill the log (it is cut where it is logged, too).
const LINE_BYTES_MAX: usize = 64 * 1024;
/// How long the end of the process waits for lines to be written out. A reader of our stderr that has stalled must not keep
/// a gateway whose work is done from ending.
const WRITE_OUT_MAX: Duration = Duration::from_secs(1);
/// How often a full channel is tried again within that time.
const WRITE_OUT_STEP: Duration = Duration::from_millis(10);

static LINES_DROPPED: AtomicU64 = AtomicU64::new(0);

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("MAILWEAVE_LOG is no log filter ({0}); write something like \"info,mailweave::imap=debug\"")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("the log was set up before")]
    AlreadySetUp(#[from] tracing_subscriber::util::TryInitError),
    #[error("the log's writer could not be started")]
    Thread(#[source] io::Error),
    #[error("metrics cannot be recorded")]
    Metrics(#[from] BuildError),
}

/// Keeps the log's writer alive; dropping it writes out what waits, for a second at most.
///
/// Not `tracing_appender::non_blocking`: when its channel is full at the end it prints to stdout, which in `2>&1 | less` is
/// the very pipe that has stalled.
#[derive(Debug)]
#[must_use = "lines are lost when it is dropped early"]
pub struct LogGuard {
    lines: SyncSender<Line>,
    /// Says nothing, but is cut off when the writer has ended.
    ended: Receiver<()>,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let deadline = Instant::now() + WRITE_OUT_MAX;
        while let Err(TrySendError::Full(_)) = self.lines.try_send(Line::End) {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(WRITE_OUT_STEP);
        }
        // Either it ends in time, or somebody reads too slowly to be waited for.
        let _ = self.ended.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Sends all events to stderr, filtered by `MAILWEAVE_LOG` if it is set, else by the level.
///
/// # Errors
/// A filter that cannot be read, or a second call.
pub fn init_log(level: LogLevel, format: LogFormat) -> Result<LogGuard, TelemetryError> {
    let asked = std::env::var(LOG_VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let filter = EnvFilter::try_new(asked.unwrap_or_else(|| default_filter(level)))?;
    let (lines, guard) = start_writer(io::stderr()).map_err(TelemetryError::Thread)?;
    let base = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => base.with(text_layer(lines, io::stderr().is_terminal())).try_init()?,
        LogFormat::Json => base.with(json_layer(lines)).try_init()?,
    }
    Ok(guard)
}

/// A thread that alone waits for `out`.
fn start_writer(out: impl io::Write + Send + 'static) -> io::Result<(Lines, LogGuard)> {
    let (lines, waiting) = sync_channel(LINES_WAITING_MAX);
    let (alive, ended) = sync_channel::<()>(0);
    std::thread::Builder::new().name("log".to_owned()).spawn(move || {
        write_out(&waiting, out);
        drop(alive);
    })?;
    Ok((Lines(lines.clone()), LogGuard { lines, ended }))
}

/// The wire is shown at trace alone, and libraries speak only from warnings up: their debug output may hold addresses.
fn default_filter(level: LogLevel) -> String {
    format!(
        "warn,mailweave={level},wire={wire}",
        level = level.name(),
        wire = if level == LogLevel::Trace { "trace" } else { "off" }
    )
}

fn text_layer<S, W>(writer: W, colours: bool) -> impl tracing_subscriber::Layer<S>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + 'static,
{
    tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(writer)
}

/// Fields stand beside `message`, so that `event="ready"` is found at the top of its object.
fn json_layer<S, W>(writer: W) -> impl tracing_subscriber::Layer<S>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + 'static,
{
    tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(true).with_writer(writer)
}

#[derive(Debug)]
enum Line {
    Text(Vec<u8>),
    End,
}

fn write_out(waiting: &Receiver<Line>, mut out: impl io::Write) {
    while let Ok(Line::Text(text)) = waiting.recv() {
        // Nobody is left to tell when stderr is closed.
        if out.write_all(&text).is_err() {
            return;
        }
    }
}

/// Hands each event's line to the writer's thread.
#[derive(Debug, Clone)]
struct Lines(SyncSender<Line>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = OneLine<'a>;
    fn make_writer(&'a self) -> Self::Writer {
        OneLine { text: Vec::with_capacity(256), lines: &self.0 }
    }
}

#[derive(Debug)]
struct OneLine<'a> {
    text: Vec<u8>,
    lines: &'a SyncSender<Line>,
}

impl io::Write for OneLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = LINE_BYTES_MAX.saturating_sub(self.text.len());
        self.text.extend(bytes.iter().take(room));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for OneLine<'_> {
    fn drop(&mut self) {
        if self.text.len() == LINE_BYTES_MAX {
            self.text.push(b'\n');
        }
        if self.lines.try_send(Line::Text(std::mem::take(&mut self.text))).is_err() {
            LINES_DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Starts recording metrics, for the whole process. Call `run_upkeep` on the handle every few seconds, and [`render`] to show them.
///
/// # Errors
/// [`TelemetryError::Metrics`] when a recorder is there already.
pub fn init_metrics() -> Result<PrometheusHandle, TelemetryError> {
    // Buckets, since summaries of several nodes cannot be added up. 250 ms is what we promise from final dot to 250.
    const SECONDS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];
    let handle = PrometheusBuilder::new().set_buckets(&SECONDS)?.install_recorder()?;
    for metric in METRICS {
        metric.describe();
    }
    Ok(handle)
}

/// All metrics in Prometheus's text format.
#[must_use]
pub fn render(handle: &PrometheusHandle) -> String {
    metrics::counter!(LOG_LINES_DROPPED).absolute(LINES_DROPPED.load(Ordering::Relaxed));
    handle.render()
}

/// What a metric's value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// What there is now.
    Gauge,
    /// How long something took, in seconds.
    Histogram,
}

/// A metric as it is told to the operator.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// The labels in use follow in brackets.
    pub help: &'static str,
}

impl Metric {
    fn describe(&self) {
        match self.kind {
            Kind::Counter => metrics::describe_counter!(self.name, self.help),
            Kind::Gauge => metrics::describe_gauge!(self.name, self.help),
            Kind::Histogram => metrics::describe_histogram!(self.name, self.help),
        }
    }
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, help }
}

const fn seconds(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, help }
}

const LOG_LINES_DROPPED: &str = "mailweave_log_lines_dropped_total";

/// Every metric there is. The layers that record them know nothing of this module and write the names out: a test passes a
/// mail through a gateway and compares what it shows with this list.
pub const METRICS: &[Metric] = &[
    counter("mailweave_smtp_connections_total", "SMTP connections (listener)"),
    counter("mailweave_smtp_connections_refused_total", "SMTP connections beyond a limit (listener)"),
    counter("mailweave_smtp_messages_received_total", "Messages received to their end (listener)"),
    seconds("mailweave_smtp_accept_seconds", "From a message's final dot to our answer (listener)"),
    counter("mailweave_messages_total", "Messages decided on (via, verdict)"),
    gauge("mailweave_accounts", "Accounts of all nodes (state)"),
    counter("mailweave_account_errors_total", "Failures of accounts (code)"),
    gauge("mailweave_jobs_waiting", "Jobs of all nodes that are not done (kind)"),
    gauge("mailweave_job_oldest_seconds", "How long the most overdue job of all nodes has been due"),
    counter("mailweave_jobs_total", "Jobs performed (kind, outcome)"),
    seconds("mailweave_job_seconds", "How long a job took (kind)"),
    counter("mailweave_webhook_posts_total", "Events posted to the CRM (outcome)"),
    counter("mailweave_http_requests_total", "API requests (route, status)"),
    seconds("mailweave_http_request_seconds", "How long an API request took (route)"),
    seconds(
        "mailweave_store_commit_seconds",
        "How long a durable commit took, waiting for its turn included",
    ),
    gauge("mailweave_tls_expires_seconds", "Until the gateway's own certificate ends"),
    counter(LOG_LINES_DROPPED, "Log lines lost because nobody read stderr"),
];

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        sync::{Arc, Mutex, mpsc},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_has_its_fields_at_the_top() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::registry().with(json_layer(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(event = "ready", "all listeners are bound")
        });
        let line: serde_json::Value = serde_json::from_slice(&sink.0.lock().unwrap()).unwrap();
        assert_eq!((line["event"].as_str(), line["level"].as_str()), (Some("ready"), Some("INFO")));
    }

    #[test]
    fn a_text_line_shows_its_fields_and_no_colours_off_a_terminal() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::registry().with(text_layer(move || writer.clone(), false));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(event = "ready", peer = "\x1b[31mred\nINFO", "bound")
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert!(
            text.contains("event=\"ready\"") && text.lines().count() == 1 && !text.contains('\x1b'),
            "{text:?}"
        );
    }

    /// What stderr is while nobody reads it: each write waits until the other end is dropped.
    struct Stalled(Receiver<()>);

    impl io::Write for Stalled {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_waits_is_written_out_at_the_end() {
        let sink = Sink::default();
        let (lines, guard) = start_writer(sink.clone()).unwrap();
        for _ in 0..1000 {
            lines.make_writer().write_all(b"line\n").unwrap();
        }
        drop(guard);
        assert_eq!(sink.0.lock().unwrap().len(), 5000);
    }

    #[test]
    fn a_reader_that_has_stalled_does_not_keep_the_process_from_ending() {
        for count in [1, 2 * LINES_WAITING_MAX] {
            let (reader, stalled) = mpsc::channel();
            let (lines, guard) = start_writer(Stalled(stalled)).unwrap();
            for _ in 0..count {
                lines.make_writer().write_all(b"line\n").unwrap();
            }
            let begun = Instant::now();
            drop(guard);
            assert!(begun.elapsed() < 10 * WRITE_OUT_MAX, "{count} lines: {:?}", begun.elapsed());
            drop(reader);
        }
    }

    #[test]
    fn lines_beyond_what_may_wait_are_dropped_and_counted() {
        let (sender, waiting) = sync_channel(1);
        let lines = Lines(sender);
        let before = LINES_DROPPED.load(Ordering::Relaxed);
        for _ in 0..3 {
            lines.make_writer().write_all(b"line\n").unwrap();
        }
        assert!(LINES_DROPPED.load(Ordering::Relaxed) - before >= 2);
        assert!(matches!(waiting.try_recv(), Ok(Line::Text(text)) if text == b"line\n"));
    }

    #[test]
    fn a_line_is_cut_where_it_is_too_long() {
        let (sender, waiting) = sync_channel(1);
        Lines(sender).make_writer().write_all(&vec![b'x'; 2 * LINE_BYTES_MAX]).unwrap();
        assert!(matches!(waiting.try_recv(), Ok(Line::Text(text)) if text.len() == LINE_BYTES_MAX + 1));
    }

    #[test]
    fn every_metric_has_our_prefix_and_the_suffix_of_its_kind() {
        for metric in METRICS {
            assert!(metric.name.starts_with("mailweave_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.kind != Kind::Histogram || metric.name.ends_with("_seconds"), "{}", metric.name);
        }
    }

    #[test]
    fn a_level_leaves_libraries_at_warnings() {
        assert_eq!(default_filter(LogLevel::Info), "warn,mailweave=info,wire=off");
        assert_eq!(default_filter(LogLevel::Trace), "warn,mailweave=trace,wire=trace");
        assert!(EnvFilter::try_new(default_filter(LogLevel::Debug)).is_ok());
    }
}
