//! A curve as SVG.

use std::fmt::Write;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 40.0;

/// A horizontal line to compare with.
pub(super) struct Level {
    pub(super) name: &'static str,
    pub(super) value: f64,
}

/// A curve over whole numbers.
pub(super) struct Plot {
    /// What the whole numbers count.
    pub(super) x: &'static str,
    /// At least two points, in ascending order.
    pub(super) points: Vec<(f64, f64)>,
    pub(super) levels: Vec<Level>,
}

/// From least to greatest, never empty.
#[derive(Clone, Copy)]
struct Range {
    least: f64,
    greatest: f64,
}

impl Range {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let finite = values.filter(|value| value.is_finite());
        let (least, greatest) = finite
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, greatest), value| {
                (least.min(value), greatest.max(value))
            });
        match greatest - least {
            span if span > 0.0 => Self { least, greatest },
            _ if least.is_finite() => Self {
                least: least - 0.5,
                greatest: least + 0.5,
            },
            _ => Self {
                least: 0.0,
                greatest: 1.0,
            },
        }
    }

    fn place(self, value: f64, from: f64, to: f64) -> f64 {
        let share = (value - self.least) / (self.greatest - self.least);
        from + share.clamp(0.0, 1.0) * (to - from)
    }

    /// About five round numbers within.
    fn ticks(self) -> Vec<f64> {
        let rough = (self.greatest - self.least) / 4.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|&step| step >= rough)
            .unwrap_or(rough);
        let first = (self.least / step).ceil() as i64;
        let ticks = (first..).map(|at| at as f64 * step).take(12);
        ticks
            .take_while(|&tick| tick <= self.greatest * (1.0 + 1e-12))
            .collect()
    }
}

impl Plot {
    pub(super) fn svg(&self) -> String {
        let x = Range::of(self.points.iter().map(|point| point.0));
        let levels = self.levels.iter().map(|level| level.value);
        let y = Range::of(self.points.iter().map(|point| point.1).chain(levels));
        let right = |value| x.place(value, LEFT, WIDTH - RIGHT);
        let up = |value| y.place(value, HEIGHT - BOTTOM, TOP);
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n");
        // Writing to a string cannot fail.
        for tick in y.ticks() {
            let at = up(tick);
            let _ = writeln!(
                svg,
                "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0,
                number(tick)
            );
        }
        for tick in x.ticks().into_iter().filter(|tick| tick.fract() == 0.0) {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                right(tick),
                HEIGHT - BOTTOM + 18.0,
                number(tick)
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - 4.0,
            self.x
        );
        for Level { name, value } in &self.levels {
            let at = up(*value);
            let _ = writeln!(
                svg,
                "<line class=\"level\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\">{name}</text>",
                WIDTH - RIGHT,
                WIDTH - RIGHT + 6.0,
                at + 4.0
            );
        }
        let points: Vec<String> = self
            .points
            .iter()
            .map(|&(at, value)| format!("{:.1},{:.1}", right(at), up(value)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline class=\"curve\" points=\"{}\"/>\n</svg>",
            points.join(" ")
        );
        svg
    }
}

/// A tick's number, without the noise of its last digits.
fn number(value: f64) -> String {
    if value != 0.0 && !(1e-4..1e7).contains(&value.abs()) {
        return format!("{value:e}");
    }
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_within_the_range() {
        let ticks = |least, greatest| Range { least, greatest }.ticks();
        assert_eq!(ticks(0.0, 1.0), [0.0, 0.5, 1.0]);
        assert_eq!(ticks(1.0, 100.0), [50.0, 100.0]);
        assert_eq!(ticks(-3.0, 7.0).len(), 2);
        assert_eq!(
            [number(0.5), number(1e9), number(-0.0), number(0.1 + 0.2)],
            ["0.5", "1e9", "0", "0.3"]
        );
    }

    #[test]
    fn a_curve_without_height_or_with_senseless_values_is_drawn_too() {
        for points in [
            vec![(1.0, 2.0), (2.0, 2.0)],
            vec![(1.0, f64::NAN), (2.0, f64::INFINITY)],
        ] {
            let svg = Plot {
                x: "round",
                points,
                levels: vec![],
            }
            .svg();
            assert!(svg.starts_with("<svg") && svg.contains("polyline"), "{svg}");
        }
    }
}
