//! A curve as SVG.

use std::fmt::Write;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 280.0;
/// Seven characters at the size that narrow pages have.
const LEFT: f64 = 104.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 56.0;
/// Between the names of two levels, at least.
const LINE: f64 = 26.0;

/// A horizontal line to compare with.
pub(super) struct Level {
    pub(super) name: &'static str,
    pub(super) value: f64,
}

/// A curve over whole numbers.
pub(super) struct Plot {
    /// What is shown, escaped for HTML.
    pub(super) title: String,
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
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            self.label()
        );
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
                HEIGHT - BOTTOM + 22.0,
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
        let points: Vec<String> = self
            .points
            .iter()
            .map(|&(at, value)| format!("{:.1},{:.1}", right(at), up(value)))
            .collect();
        let _ = writeln!(svg, "<polyline class=\"curve\" points=\"{}\"/>", points.join(" "));
        self.draw_levels(&mut svg, up);
        svg.push_str("</svg>\n");
        svg
    }

    /// What the plot shows, in words.
    fn label(&self) -> String {
        let at = |point: Option<&(f64, f64)>| {
            let (at, value) = point.copied().unwrap_or_default();
            format!("{} at {} {at}", four_digits(value), self.x)
        };
        let mut label = format!(
            "{}: {}, {}",
            self.title,
            at(self.points.first()),
            at(self.points.last())
        );
        for Level { name, value } in &self.levels {
            let _ = write!(label, "; {name} {}", four_digits(*value));
        }
        label
    }

    /// The levels, with their names on them, which are pushed apart where levels are close.
    fn draw_levels(&self, svg: &mut String, up: impl Fn(f64) -> f64) {
        let mut levels: Vec<(f64, &Level)> =
            self.levels.iter().map(|level| (up(level.value), level)).collect();
        levels.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut above = TOP;
        for (at, Level { name, value }) in levels {
            let _ = writeln!(
                svg,
                "<line class=\"level\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>",
                right = WIDTH - RIGHT
            );
            let base = (at - 5.0).max(above + LINE);
            above = base;
            let _ = writeln!(
                svg,
                "<text class=\"name\" x=\"{}\" y=\"{base:.1}\" text-anchor=\"end\">{name} {}</text>",
                WIDTH - RIGHT,
                four_digits(*value)
            );
        }
    }
}

fn four_digits(value: f64) -> String {
    number((value * 1e4).round() / 1e4)
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
                title: "curve".to_owned(),
                x: "round",
                points,
                levels: vec![],
            }
            .svg();
            assert!(svg.starts_with("<svg") && svg.contains("polyline"), "{svg}");
        }
    }
}
