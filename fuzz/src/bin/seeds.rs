//! Writes the seeds below a folder, one folder for each target.
//!
//! Not here: the seeds themselves (the library of this crate).

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let below = PathBuf::from(env::args().nth(1).unwrap_or_else(|| "corpus".to_owned()));
    for (target, seeds) in mailweave_fuzz::SEEDS {
        let folder = below.join(target);
        fs::create_dir_all(&folder)?;
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
