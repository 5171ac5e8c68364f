// SPDX-License-Identifier: GPL-2.0
//! `check-json VERB`: says what is wrong with the JSON on its standard input, if it is not what `nvhv VERB --json` prints.

use nvhv_schemas::Schema;
use serde_json::{Deserializer, Value};
use std::process::ExitCode;
use std::{env, io};

fn main() -> ExitCode {
    match faults(&env::args().nth(1).unwrap_or_default()) {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            println!("{}", faults.join("\n"));
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("check-json: {why}");
            ExitCode::from(2)
        }
    }
}

/// Of all values there are, one after the other.
fn faults(verb: &str) -> Result<Vec<String>, String> {
    let schema = Schema::of(verb)?;
    let mut faults = Vec::new();
    for value in Deserializer::from_reader(io::stdin().lock()).into_iter::<Value>() {
        match value {
            Ok(value) => faults.extend(schema.faults(&value)),
            Err(error) => faults.push(format!("it is no JSON: {error}")),
        }
    }
    Ok(faults)
}
