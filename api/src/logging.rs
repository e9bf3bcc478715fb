//! Log lines as etcd writes them: one JSON object a line with level, ts, caller, msg and fields.
//!
//! A layer over `tracing`; other crates log through its macros. Promises that a line is written in
//! one piece and that a field never hides one of the four standard keys. Files that grow are
//! `rotate.rs`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

mod rotate;
mod time;

use rotate::RotatingFile;
pub use rotate::Rotation;

/// An error logged with this field set ends the process; its line carries the level `fatal`.
const FATAL_FIELD: &str = "fatal";
/// A panic's line carries the level `panic`.
const PANIC_FIELD: &str = "panic";
const STANDARD_KEYS: [&str; 4] = ["level", "ts", "caller", "msg"];

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// Columns separated by tabs, the fields as JSON.
    Console,
}

/// What to log, how, and where to.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--log-level`.
    pub level: String,
    /// `--log-format`.
    pub format: Format,
    /// `--log-outputs`.
    pub outputs: Vec<String>,
    /// How a file is rotated, if it is.
    pub rotation: Option<Rotation>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: Format::Json,
            outputs: vec!["default".to_owned()],
            rotation: None,
        }
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// A file of `--log-outputs` cannot be opened.
    #[error("open sink {path:?}: {source}")]
    Open {
        /// As given.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// `--log-outputs` is empty.
    #[error("--log-outputs names no output")]
    NoOutput,
    /// Rotation is asked for, and there is no file, or more than one.
    #[error("--log-outputs requires a single file path when --log-rotate-config-json is defined")]
    NotOneFile,
}

/// Makes `options` the log of this process, and a panic a line of it. Later calls are ignored.
pub fn start(options: &Options) -> Result<(), LoggingError> {
    let layer = Lines::open(options)?;
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter(&options.level)));
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
    Ok(())
}

/// Our own crates at the level asked for; libraries only when something is wrong, unless debugging.
fn filter(level: &str) -> Targets {
    let own = match level {
        "debug" => LevelFilter::DEBUG,
        "warn" => LevelFilter::WARN,
        "error" | "dpanic" | "panic" | "fatal" => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    };
    let debugging = own == LevelFilter::DEBUG;
    let others = if debugging { LevelFilter::INFO } else { LevelFilter::ERROR };
    // It calls a peer that stops an error; what concerns a person, the node says itself.
    let openraft = if debugging { LevelFilter::INFO } else { LevelFilter::OFF };
    Targets::new()
        .with_target("holdfast", own)
        .with_target("openraft", openraft)
        .with_default(others.min(own))
}

/// A member whose thread panicked must not go on with half its parts.
fn log_panic(info: &std::panic::PanicHookInfo<'_>) {
    // The store expects that opening its directory of blocks may panic, and starts that one anew.
    if holdfast_store::is_guarded() {
        return;
    }
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message");
    let backtrace = std::backtrace::Backtrace::force_capture();
    tracing::error!(panic = true, location, stacktrace = %backtrace, "{message}");
    std::process::abort();
}

/// The layer that writes lines.
struct Lines {
    format: Format,
    sinks: Vec<Sink>,
}

enum Sink {
    Stderr,
    Stdout,
    File(Mutex<File>),
    Rotating(Mutex<RotatingFile>),
}

impl Lines {
    fn open(options: &Options) -> Result<Self, LoggingError> {
        let sinks: Vec<Sink> = options
            .outputs
            .iter()
            .map(|output| Sink::open(output, options))
            .collect::<Result<_, _>>()?;
        if sinks.is_empty() {
            return Err(LoggingError::NoOutput);
        }
        let files = sinks.iter().filter(|sink| matches!(sink, Sink::Rotating(_))).count();
        if options.rotation.is_some() && files != 1 {
            return Err(LoggingError::NotOneFile);
        }
        Ok(Self { format: options.format, sinks })
    }
}

impl Sink {
    fn open(output: &str, options: &Options) -> Result<Self, LoggingError> {
        let refused = |source| LoggingError::Open { path: output.into(), source };
        match output {
            "default" | "stderr" | "systemd/journal" => Ok(Self::Stderr),
            "stdout" => Ok(Self::Stdout),
            path => match &options.rotation {
                None => OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)
                    .map(|file| Self::File(Mutex::new(file)))
                    .map_err(refused),
                Some(rotation) => RotatingFile::open(path.as_ref(), rotation.clone())
                    .map(|file| Self::Rotating(Mutex::new(file)))
                    .map_err(refused),
            },
        }
    }

    /// A log that cannot be written has nowhere to say so.
    fn write(&self, line: &[u8]) {
        let _ = match self {
            Self::Stderr => io::stderr().lock().write_all(line),
            Self::Stdout => io::stdout().lock().write_all(line),
            Self::File(file) => file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line),
            Self::Rotating(file) => file.lock().unwrap_or_else(PoisonError::into_inner).write(line),
        };
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = Line {
            level: fields.level(*event.metadata().level()),
            time: time::format(since_epoch()),
            caller: caller(event.metadata()),
            message: fields.message,
            fields: fields.others,
        };
        let text = line.render(self.format);
        self.sinks.iter().for_each(|sink| sink.write(text.as_bytes()));
    }
}

fn since_epoch() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Folder, file and line, as zap shortens it.
fn caller(metadata: &Metadata<'_>) -> String {
    let file = metadata.file().unwrap_or("unknown");
    let short = match file.rmatch_indices('/').nth(1) {
        Some((at, _)) => &file[at + 1..],
        None => file,
    };
    format!("{short}:{}", metadata.line().unwrap_or(0))
}

struct Line {
    level: &'static str,
    time: String,
    caller: String,
    message: String,
    fields: Map<String, Value>,
}

impl Line {
    fn render(self, format: Format) -> String {
        let text = |text: &str| Value::String(text.to_owned()).to_string();
        match format {
            Format::Json => {
                let mut line = format!(
                    "{{\"level\":{},\"ts\":{},\"caller\":{},\"msg\":{}",
                    text(self.level),
                    text(&self.time),
                    text(&self.caller),
                    text(&self.message)
                );
                for (key, value) in &self.fields {
                    line.push_str(&format!(",{}:{value}", text(key)));
                }
                line.push_str("}\n");
                line
            }
            Format::Console => {
                let Self { level, time, caller, message, fields } = self;
                let fields = Value::Object(fields);
                format!("{time}\t{level}\t{caller}\t{message}\t{fields}\n")
            }
        }
    }
}

/// Collects the fields of one event.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
    fatal: bool,
    panic: bool,
}

impl Fields {
    fn level(&self, level: Level) -> &'static str {
        match level {
            _ if self.panic => "panic",
            _ if self.fatal => "fatal",
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            _ => "debug",
        }
    }

    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name().strip_prefix("r#").unwrap_or(field.name());
        let key = match name {
            name if STANDARD_KEYS.contains(&name) => format!("field-{name}"),
            name => name.replace('_', "-"),
        };
        self.others.insert(key, value);
    }
}

impl Visit for Fields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        match field.name() {
            FATAL_FIELD => self.fatal = value,
            PANIC_FIELD => self.panic = value,
            _ => self.put(field, Value::Bool(value)),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            _ => self.put(field, value.into()),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests;
