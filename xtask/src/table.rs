//! The live table of a headless run.

use serde_json::{Value, json};

/// What one round was, as it happened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) round: u64,
    pub(crate) clients: u64,
    /// Share of the held-out examples, 0 to 1.
    pub(crate) accuracy: f64,
    /// The largest ε that any client's own ledger held after this round; none without noise.
    pub(crate) epsilon: Option<f64>,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    pub(crate) seconds: f64,
}

impl Row {
    /// Reads what the driver reports; none where a number is missing or is not one.
    pub(crate) fn read(value: &Value) -> Option<Self> {
        let whole = |name: &str| value.get(name).and_then(Value::as_u64);
        let real = |name: &str| value.get(name).and_then(Value::as_f64).filter(|x| x.is_finite());
        Some(Self {
            round: whole("round")?,
            clients: whole("clients")?,
            accuracy: real("accuracy").filter(|share| (0.0..=1.0).contains(share))?,
            epsilon: match value.get("epsilon")? {
                Value::Null => None,
                _ => Some(real("epsilon")?),
            },
            bytes_up: whole("bytes_up")?,
            bytes_down: whole("bytes_down")?,
            seconds: real("seconds")?,
        })
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "round": self.round,
            "clients": self.clients,
            "accuracy": self.accuracy,
            "epsilon": self.epsilon,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "seconds": self.seconds,
        })
    }

    /// One line under [`HEADER`].
    pub(crate) fn line(&self) -> String {
        let epsilon = match self.epsilon {
            Some(epsilon) => format!("{epsilon:.2}"),
            None => "off".to_owned(),
        };
        format!(
            "{:>5} {:>8} {:>13} {:>8} {:>12} {:>12} {:>8.1}",
            self.round,
            self.clients,
            format!("{:.2} %", self.accuracy * 100.0),
            epsilon,
            grouped(self.bytes_up),
            grouped(self.bytes_down),
            self.seconds
        )
    }
}

pub(crate) const HEADER: &str = "round  clients test accuracy  ε spent     bytes up   bytes down  seconds";

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Value {
        json!({"round": 1, "clients": 4, "accuracy": 0.8812, "epsilon": null, "bytes_up": 407_176, "bytes_down": 1000,
               "seconds": 2.5})
    }

    #[test]
    fn a_row_is_shown_under_its_headings_and_survives_json() {
        let read = Row::read(&row()).unwrap();
        assert_eq!(read.line().chars().count(), HEADER.chars().count());
        assert!(
            read.line().contains("88.12 %") && read.line().contains("407,176") && read.line().contains("off")
        );
        assert_eq!(Row::read(&read.json()), Some(read));
    }

    #[test]
    fn a_row_without_a_real_number_is_none() {
        for (field, value) in [
            ("accuracy", Value::Null),
            ("accuracy", json!(1.5)),
            ("bytes_down", Value::Null),
            ("seconds", json!("2")),
        ] {
            let mut row = row();
            row[field] = value;
            assert_eq!(Row::read(&row), None, "{field}");
        }
        assert_eq!(Row::read(&json!({})), None);
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
