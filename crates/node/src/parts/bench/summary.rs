//! Several runs as one: of each figure the median, the lowest and the highest.

use serde_json::{Map, Value, json};

/// The median; of an even count the mean of the two in the middle. Zero of nothing.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
        (Some(low), Some(high)) if sorted.len().is_multiple_of(2) => f64::midpoint(*low, *high),
        (_, Some(high)) => *high,
        _ => 0.0,
    }
}

/// The shape of one run, with `{"median", "lowest", "highest"}` in the place of each number. What is no number is taken from the first run;
/// a figure that some runs do not have is that of the others.
pub(super) fn summary(runs: &[Value]) -> Value {
    let Some(first) = runs.iter().find(|run| !run.is_null()) else {
        return Value::Null;
    };
    match first {
        Value::Object(members) => {
            let member = |key: &String| {
                let of_runs: Vec<Value> =
                    runs.iter().map(|run| run[key.as_str()].clone()).collect();
                (key.clone(), summary(&of_runs))
            };
            Value::Object(members.keys().map(member).collect())
        }
        Value::Array(items) => {
            let item = |at: usize| {
                let of_runs: Vec<Value> = runs.iter().map(|run| run[at].clone()).collect();
                summary(&of_runs)
            };
            (0..items.len()).map(item).collect()
        }
        Value::Number(_) => {
            let numbers: Vec<f64> = runs.iter().filter_map(Value::as_f64).collect();
            let lowest = numbers.iter().copied().fold(f64::INFINITY, f64::min);
            let highest = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            json!({"median": median(&numbers), "lowest": lowest, "highest": highest})
        }
        other => other.clone(),
    }
}

/// A line for each figure, for people: `outer.inner` and `median (lowest to highest)`.
pub(super) fn lines(value: &Value) -> Map<String, Value> {
    let mut lines = Map::new();
    add_lines("", value, &mut lines);
    lines
}

fn add_lines(path: &str, value: &Value, lines: &mut Map<String, Value>) {
    let below = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        }
    };
    match value {
        Value::Object(members) => {
            if let (Some(median), Some(lowest), Some(highest)) = (
                members.get("median"),
                members.get("lowest"),
                members.get("highest"),
            ) {
                let spread = if lowest == highest {
                    number(median)
                } else {
                    format!(
                        "{} ({} to {})",
                        number(median),
                        number(lowest),
                        number(highest)
                    )
                };
                lines.insert(path.to_owned(), Value::String(spread));
                return;
            }
            for (key, value) in members {
                add_lines(&below(key), value, lines);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (at, value) in items.iter().enumerate() {
                add_lines(&below(&(at + 1).to_string()), value, lines);
            }
        }
        value => {
            lines.insert(path.to_owned(), value.clone());
        }
    }
}

/// Whole numbers without a fraction, as people write them.
fn number(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if number.fract() == 0.0 => format!("{number:.0}"),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_both_middles() {
        for (values, expected) in [
            (&[] as &[f64], 0.0),
            (&[3.0], 3.0),
            (&[9.0, 1.0], 5.0),
            (&[9.0, 1.0, 2.0], 2.0),
            (&[4.0, 100.0, 2.0, 1.0], 3.0),
        ] {
            assert!(
                (median(values) - expected).abs() < f64::EPSILON,
                "{values:?}"
            );
        }
    }

    #[test]
    fn each_number_of_several_runs_becomes_median_and_range() {
        let runs = [
            json!({"rate": 10, "node": {"core": 1.5}, "latency": null, "is": "words", "each": [{"of": 1}]}),
            json!({"rate": 30, "node": {"core": 0.5}, "latency": {"p50": 7}, "is": "words", "each": [{"of": 5}]}),
            json!({"rate": 20, "node": {"core": 2.5}, "latency": {"p50": 9}, "is": "words", "each": [{"of": 3}]}),
        ];
        let spread = |median: f64, lowest: f64, highest: f64| json!({"median": median, "lowest": lowest, "highest": highest});
        let expected = json!({
            "rate": spread(20.0, 10.0, 30.0),
            "node": {"core": spread(1.5, 0.5, 2.5)},
            "latency": {"p50": spread(8.0, 7.0, 9.0)},
            "is": "words",
            "each": [{"of": spread(3.0, 1.0, 5.0)}],
        });
        assert_eq!(summary(&runs), expected);
        assert_eq!(summary(&[]), Value::Null);
    }

    #[test]
    fn people_get_one_line_for_each_figure() {
        let value = json!({"node": {"core": {"median": 2.5, "lowest": 1.0, "highest": 3.0}}, "runs": 3, "same": {"median": 4.0, "lowest": 4.0, "highest": 4.0}});
        assert_eq!(
            Value::Object(lines(&value)),
            json!({"node.core": "2.5 (1 to 3)", "runs": 3, "same": "4"})
        );
    }
}
