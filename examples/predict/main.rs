//! Reads a set of mail the way the gateway does and writes what it understood, a JSON object a line, for a scoring program.
//!
//! `cargo run --release --example predict -- SET FOLDER [NEGATIVES]`; sets: threads, threads-gateway, mime, replies, bounces,
//! autoreply, forwards, auth, spf. Behind the folder of threads may stand `subjects-on` or `subjects-off`: without, subjects join mail
//! where many answers do not say what they answer. Not here: any knowledge of a single file, and the scoring.

mod auth;
mod mail_sets;
mod threads;

use std::{
    collections::HashMap,
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use threads::{Participants, Subjects};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (set, folder, negatives) = match arguments.as_slice() {
        [set, folder] => (set, folder, None),
        [set, folder, negatives] => (set, folder, Some(negatives)),
        _ => bail!("usage: predict SET FOLDER [NEGATIVES]"),
    };
    let folder = Path::new(folder);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let participants = match set.as_str() {
        "threads" => Some(Participants::Owner),
        "threads-gateway" => Some(Participants::Named),
        _ => None,
    };
    if let Some(participants) = participants {
        let subjects = match negatives.map(String::as_str) {
            Some("subjects-on") => Subjects::On,
            Some("subjects-off") => Subjects::Off,
            Some(other) => bail!("{other:?} is neither subjects-on nor subjects-off"),
            None => Subjects::AsNeeded,
        };
        threads::write(&mut out, folder, &messages(folder)?, (participants, subjects))?;
        return Ok(out.flush()?);
    }
    if set == "auth" || set == "spf" {
        let write = if set == "auth" { auth::write_auth } else { auth::write_spf };
        write(&mut out, folder)?;
        return Ok(out.flush()?);
    }
    let subjects = outer_subjects(folder)?;
    let predict: Predict<'_> = match set.as_str() {
        "mime" => &|_, path, raw| mail_sets::mime(path, raw),
        "replies" => &|_, path, raw| mail_sets::reply(path, raw),
        "bounces" => &|_, path, raw| mail_sets::bounce(path, raw),
        "autoreply" => &|_, path, raw| mail_sets::autoreply(path, raw),
        "forwards" => {
            &|name, path, raw| mail_sets::forward(path, raw, subjects.get(name).map(String::as_str))
        }
        other => bail!("there is no set {other:?}"),
    };
    write_all(&mut out, folder, "", predict)?;
    if let Some(negatives) = negatives {
        write_all(&mut out, Path::new(negatives), "neg/", predict)?;
    }
    Ok(out.flush()?)
}

/// From a message's name, path and bytes.
type Predict<'a> = &'a dyn Fn(&str, &Path, &[u8]) -> Value;

/// The subjects of messages of which the folder holds only the text, by name: its list gives them beside.
fn outer_subjects(folder: &Path) -> Result<HashMap<String, String>> {
    let list = fs::read_to_string(folder.join("truth.jsonl")).unwrap_or_default();
    let mut subjects = HashMap::new();
    for line in list.lines().filter(|line| !line.trim().is_empty()) {
        let entry: Value = serde_json::from_str(line)?;
        let field = |name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
        subjects.extend(field("file").zip(field("outer_subject")));
    }
    Ok(subjects)
}

/// One line for each message below a folder, named by its path from there.
fn write_all(out: &mut impl io::Write, folder: &Path, prefix: &str, predict: Predict<'_>) -> Result<()> {
    for path in messages(folder)? {
        let raw = fs::read(&path).with_context(|| path.display().to_string())?;
        let name = path.strip_prefix(folder)?.display().to_string();
        let mut line = predict(&name, &path, &raw);
        if let Some(fields) = line.as_object_mut() {
            fields.insert("file".to_owned(), json!(format!("{prefix}{name}")));
        }
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// What may be a message: files with the extensions that mail has in such collections.
fn messages(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(messages(&path)?);
        } else if ["eml", "txt", "html", "mbox"]
            .iter()
            .any(|known| path.extension().is_some_and(|is| is == *known))
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
