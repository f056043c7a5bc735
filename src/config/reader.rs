//! Hands out options by name and keeps account: which were given and where, which exist, and all that is wrong.
//!
//! Not here: what the options are (`sections`) and what a value may look like (`value`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use secrecy::SecretString;
use serde::Deserialize as _;
use toml::{
    Value,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::{ConfigError, value::Setting};

/// Longest secret file read: a key or a URL fits ten times over, a mistaken path to a disk image does not.
const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Names that begin like options but are not: the client's, the administrator's key, the log filter.
const OTHER_VARIABLES: [&str; 5] =
    ["MAILWEAVE_URL", "MAILWEAVE_API_KEY", "MAILWEAVE_WORKSPACE", super::ADMIN_KEY_VARIABLE, "MAILWEAVE_LOG"];
const PREFIX: &str = "MAILWEAVE__";
/// Names as alike as this are taken for slips of the pen.
const LIKENESS_MIN: f64 = 0.6;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Line { file: String, line: usize },
    Variable(String),
    Nowhere,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line } => write!(f, "{file}:{line}: "),
            Self::Variable(name) => write!(f, "{name}: "),
            Self::Nowhere => Ok(()),
        }
    }
}

/// One thing wrong, with the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub origin: Origin,
    /// The full path of the option: `smtp.mx.listen`.
    pub key: String,
    pub problem: String,
    pub advice: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}: {}", self.origin, self.key, self.problem)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "; {}", self.advice) }
    }
}

enum Raw {
    Typed(Value),
    Text(String),
}

struct Given {
    raw: Raw,
    origin: Origin,
}

/// A part of the configuration that reads itself, naming each option, its kind and its default once.
pub trait Section: Sized {
    fn read(reader: &mut Reader) -> Self;
}

#[derive(Default)]
pub struct Reader {
    given: BTreeMap<String, Given>,
    /// Tables written out, so that an empty one under a wrong name is noticed too.
    tables: BTreeMap<String, Origin>,
    known: BTreeSet<String>,
    faults: Vec<Fault>,
    prefix: String,
}

impl Reader {
    /// Adds what a file says.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] when it is not TOML.
    pub fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            message: error.to_string(),
        };
        let table = DeTable::parse(text).map_err(syntax)?.into_inner();
        let place = Place { file: path.display().to_string(), text };
        self.add_table("", table, &place).map_err(syntax)
    }

    /// Adds the overrides among environment variables, and complains of those that look meant as one.
    pub fn add_variables(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        for (name, text) in variables {
            let origin = Origin::Variable(name.clone());
            if let Some(path) = name.strip_prefix(PREFIX) {
                let key = path.to_ascii_lowercase().replace("__", ".");
                self.given.insert(key, Given { raw: Raw::Text(text), origin });
            } else if let Some(meant) = meant_variable(&name) {
                self.fault(
                    origin,
                    &name,
                    "is no variable of ours".to_owned(),
                    format!("did you mean {meant}?"),
                );
            }
        }
    }

    fn add_table(
        &mut self,
        prefix: &str,
        table: DeTable<'_>,
        place: &Place<'_>,
    ) -> Result<(), toml::de::Error> {
        for (name, value) in table {
            let key = join(prefix, name.get_ref());
            let origin = place.at(name.span().start);
            if matches!(value.get_ref(), DeValue::Table(_)) {
                self.tables.insert(key.clone(), origin);
                if let DeValue::Table(inner) = value.into_inner() {
                    self.add_table(&key, inner, place)?;
                }
            } else {
                let value = Value::deserialize(ValueDeserializer::from(value))?;
                self.given.insert(key, Given { raw: Raw::Typed(value), origin });
            }
        }
        Ok(())
    }

    /// Reads the part under `name`.
    pub fn section<S: Section>(&mut self, name: &str) -> S {
        self.within(name, S::read)
    }

    /// Reads with every name below `name`.
    pub fn within<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::take(&mut self.prefix);
        self.prefix = join(&outer, name);
        let section = read(self);
        self.prefix = outer;
        section
    }

    /// The names of the tables written inside this part: `google` and `keap` of `[oauth.google]` and `[oauth.keap]`.
    pub fn tables_under(&self) -> BTreeSet<String> {
        let start = format!("{}.", self.prefix);
        let inner = |path: &String| Some(path.strip_prefix(&start)?.split_once('.')?.0.to_owned());
        let tables = self
            .tables
            .keys()
            .filter_map(|path| Some(path.strip_prefix(&start)?.split('.').next()?.to_owned()));
        self.given.keys().filter_map(inner).chain(tables).collect()
    }

    /// One option; the default when it is not given or not readable.
    pub fn setting<T: Setting>(&mut self, name: &str, default: T) -> T {
        let key = join(&self.prefix, name);
        self.known.insert(key.clone());
        let Some(given) = self.given.remove(&key) else { return default };
        let read = match &given.raw {
            Raw::Typed(value) => T::from_value(value),
            Raw::Text(text) => T::from_text(text),
        };
        read.unwrap_or_else(|| {
            self.fault(given.origin, &key, format!("wants {}", T::wanted()), String::new());
            default
        })
    }

    /// A secret: `name`, or `name_file` with the path of a file that holds it.
    pub fn secret(&mut self, name: &str) -> Option<SecretString> {
        let (plain, file) = (join(&self.prefix, name), join(&self.prefix, &format!("{name}_file")));
        self.known.extend([plain.clone(), file.clone()]);
        if self.is_variable(&plain) {
            // The environment overrides the file, whichever of the two forms either uses.
            self.given.remove(&file);
        } else if self.is_variable(&file) {
            self.given.remove(&plain);
        }
        let inline = self.setting::<Option<SecretString>>(name, None);
        let origin = self.given.get(&file).map_or(Origin::Nowhere, |given| given.origin.clone());
        let path = self.setting::<Option<std::path::PathBuf>>(&format!("{name}_file"), None);
        if inline.is_some() && path.is_some() {
            self.fault(
                origin.clone(),
                &file,
                format!("is given beside {plain}"),
                "keep one of the two".to_owned(),
            );
        }
        inline.or_else(|| self.read_secret(&path?, &file, origin))
    }

    fn is_variable(&self, key: &str) -> bool {
        self.given.get(key).is_some_and(|given| matches!(given.origin, Origin::Variable(_)))
    }

    fn read_secret(&mut self, path: &Path, key: &str, origin: Origin) -> Option<SecretString> {
        match read_limited(path) {
            Ok(text) if !text.trim().is_empty() => return Some(text.trim().to_owned().into()),
            Ok(_) => self.fault(
                origin,
                key,
                format!("{} is empty", path.display()),
                "write the secret into it".to_owned(),
            ),
            Err(error) => {
                let problem = format!("{} cannot be read: {error}", path.display());
                self.fault(origin, key, problem, "create it, or let the gateway's user read it".to_owned());
            }
        }
        None
    }

    /// The full paths of every option there is, of those parts that have been read.
    #[cfg(test)]
    pub fn known(&self) -> &BTreeSet<String> {
        &self.known
    }

    /// All that was wrong, options that do not exist included. To be called when everything has been read.
    pub fn finish(mut self) -> Vec<Fault> {
        let left = std::mem::take(&mut self.given);
        let tables = std::mem::take(&mut self.tables);
        for (key, given) in &left {
            let (problem, advice) = self.explain_unknown(key);
            self.fault(given.origin.clone(), key, problem, advice);
        }
        for (key, origin) in tables {
            let start = format!("{key}.");
            let exists = self.known.iter().any(|known| known.starts_with(&start));
            if !exists && !left.keys().any(|path| path.starts_with(&start)) {
                let (problem, advice) = self.explain_unknown(&key);
                self.fault(origin, &key, problem, advice);
            }
        }
        self.faults
    }

    fn explain_unknown(&self, key: &str) -> (String, String) {
        let start = format!("{key}.");
        if self.known.iter().any(|known| known.starts_with(&start)) {
            return (
                "is a table of options, not one value".to_owned(),
                format!("write its options under [{key}]"),
            );
        }
        if self.known.contains(key) {
            return ("is one value, not a table of options".to_owned(), format!("write {key} = …"));
        }
        let advice = match self.nearest(key) {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => "config/mailweave.toml lists every option".to_owned(),
        };
        ("is not an option".to_owned(), advice)
    }

    /// The likeliest meant option: of those with the right name in another table or a like name anywhere.
    fn nearest(&self, key: &str) -> Option<&str> {
        let ends = |path: &str| {
            (path.split('.').next().map(str::to_owned), path.rsplit('.').next().map(str::to_owned))
        };
        let (table, name) = ends(key);
        let likeness = |known: &str| {
            let (its_table, its_name) = ends(known);
            let bonus =
                f64::from(u8::from(its_table == table)) * 0.1 + f64::from(u8::from(its_name == name)) * 0.2;
            strsim::normalized_damerau_levenshtein(known, key) + bonus
        };
        let scored = self.known.iter().map(|known| (likeness(known), known.as_str()));
        let best =
            scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(likeness, _)| *likeness >= LIKENESS_MIN)?;
        Some(best.1)
    }

    pub fn fault(&mut self, origin: Origin, key: &str, problem: String, advice: String) {
        self.faults.push(Fault { origin, key: key.to_owned(), problem, advice });
    }
}

/// `MAILWEAVE_SMTP__HOSTNAME` and `MAILWEAVE_ADMINKEY` are slips; `MAILWEAVE_SERVICE_HOST` is what Kubernetes sets for a
/// service of our name, and no concern of ours.
fn meant_variable(name: &str) -> Option<String> {
    if OTHER_VARIABLES.contains(&name) || !name.starts_with("MAILWEAVE") {
        return None;
    }
    if let Some(rest) = name.strip_prefix("MAILWEAVE_").filter(|rest| rest.contains("__")) {
        return Some(format!("{PREFIX}{rest}"));
    }
    let near = |other: &&str| strsim::damerau_levenshtein(other, name) <= 2;
    OTHER_VARIABLES.into_iter().find(near).map(str::to_owned)
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn read_limited(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(SECRET_FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Turns octet positions in a file into line numbers.
struct Place<'a> {
    file: String,
    text: &'a str,
}

impl Place<'_> {
    fn at(&self, offset: usize) -> Origin {
        let line = 1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        Origin::Line { file: self.file.clone(), line }
    }
}
