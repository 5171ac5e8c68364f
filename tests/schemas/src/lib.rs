// SPDX-License-Identifier: GPL-2.0
//! The schemas of what `nvhv` prints as JSON, and whether something is as one of them says.

use jsonschema::{Registry, Validator};
use serde_json::{json, Value};

/// What the others refer to.
const COMMON: [&str; 1] = [include_str!("../../../docs/schemas/vm.json")];

/// The schema of each verb that has `--json`.
pub const OF_VERBS: [(&str, &str); 5] = [
    ("list", include_str!("../../../docs/schemas/list.json")),
    ("show", include_str!("../../../docs/schemas/show.json")),
    ("drill", include_str!("../../../docs/schemas/drill.json")),
    ("events", include_str!("../../../docs/schemas/events.json")),
    ("check", include_str!("../../../docs/schemas/check.json")),
];

/// What one verb prints.
pub struct Schema(Validator);

impl Schema {
    /// That of a verb; the error says that there is none, or what is wrong with it.
    pub fn of(verb: &str) -> Result<Self, String> {
        let found = OF_VERBS.iter().find(|(name, _)| *name == verb);
        let (_, text) = found.ok_or_else(|| format!("{verb}: no schema"))?;
        let wrong = |error: &dyn std::fmt::Display| format!("the schema of {verb}: {error}");
        let mut registry = Registry::new();
        for text in COMMON {
            let schema = parse(text)?;
            let id = schema["$id"].as_str().unwrap_or_default().to_owned();
            registry = registry.add(id, schema).map_err(|e| wrong(&e))?;
        }
        let registry = registry.prepare().map_err(|e| wrong(&e))?;
        let validator = jsonschema::draft202012::options()
            .with_registry(&registry)
            .build(&parse(text)?);
        validator.map(Schema).map_err(|e| wrong(&e))
    }

    /// All that is wrong with a value.
    pub fn faults(&self, value: &Value) -> Vec<String> {
        let told = |error: jsonschema::ValidationError<'_>| match error.instance_path().as_str() {
            "" => error.to_string(),
            place => format!("{place}: {error}"),
        };
        self.0.iter_errors(value).map(told).collect()
    }
}

fn parse(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Panics unless a value is what a verb prints, and everything in it counts: without one of its fields, with one more, or
/// with a value of another type it must not be.
pub fn assert_described(verb: &str, value: &Value) {
    let schema = Schema::of(verb).expect("a schema");
    let faults = schema.faults(value);
    assert!(faults.is_empty(), "{verb}: {faults:#?} in {value:#}");
    for (what, spoilt) in spoilt(value) {
        assert!(
            !schema.faults(&spoilt).is_empty(),
            "{verb}: its schema allows {what}: {spoilt:#}"
        );
    }
}

/// A value in all ways in which one thing in it is wrong.
fn spoilt(value: &Value) -> Vec<(String, Value)> {
    // No field is an object with this in it.
    let other = || json!({"unheard-of": null});
    let mut all = vec![("another type".into(), other())];
    let mut within = |place: String, child: &Value, put: &dyn Fn(Value) -> Value| {
        for (what, spoilt) in spoilt(child) {
            all.push((format!("{what} in {place}"), put(spoilt)));
        }
    };
    match value {
        Value::Object(fields) => {
            for (name, child) in fields {
                within(name.clone(), child, &|spoilt| {
                    let mut copy = value.clone();
                    copy[name] = spoilt;
                    copy
                });
            }
            for name in fields.keys() {
                let mut copy = fields.clone();
                copy.remove(name);
                all.push((format!("no {name}"), copy.into()));
            }
            let mut copy = fields.clone();
            copy.insert("unheard-of".into(), Value::Null);
            all.push(("one more field".into(), copy.into()));
        }
        Value::Array(items) => {
            for (number, child) in items.iter().enumerate() {
                within(number.to_string(), child, &|spoilt| {
                    let mut copy = value.clone();
                    copy[number] = spoilt;
                    copy
                });
            }
        }
        _ => {}
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_a_schema() {
        for (verb, text) in OF_VERBS {
            Schema::of(verb).expect(verb);
            describes(verb, &parse(text).expect(verb));
        }
        COMMON.map(|text| describes("", &parse(text).expect("JSON")));
    }

    /// Fields have descriptions, and those with a unit in their name tell it.
    fn describes(place: &str, schema: &Value) {
        let children = match schema {
            Value::Object(fields) => fields.iter().map(|(k, v)| (k.clone(), v)).collect(),
            Value::Array(items) => items.iter().map(|v| (String::new(), v)).collect(),
            _ => vec![],
        };
        for (name, child) in children {
            let place = format!("{place}/{name}");
            if name == "properties" {
                for (name, field) in child.as_object().expect("fields") {
                    let told = field["description"].as_str().unwrap_or_default();
                    let elsewhere = field.get("$ref").is_some() || field.get("const").is_some();
                    assert!(!told.is_empty() || elsewhere, "{place}/{name}");
                    let unit = ["ns", "ms", "bytes"]
                        .into_iter()
                        .find(|unit| name.rsplit('_').next() == Some(unit));
                    assert!(
                        elsewhere || unit.is_none_or(|unit| told.contains(unit)),
                        "{place}/{name} does not tell its unit: {told}"
                    );
                }
            }
            describes(&place, child);
        }
    }

    #[test]
    fn faults_are_found() {
        let event = json!({"time": 1.5, "event": "freeze", "vm": "a", "ns": 3});
        assert_described("events", &event);
        let faults = |value| Schema::of("events").expect("one").faults(&value);
        assert!(!faults(json!({"time": 1.5, "event": "freeze", "vm": "a", "ns": -3})).is_empty());
        assert!(!faults(json!({"time": 1.5, "event": "doze", "vm": "a", "ns": 3})).is_empty());
        assert!(Schema::of("doze").is_err());
    }
}
