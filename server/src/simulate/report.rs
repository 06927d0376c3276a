//! A simulation as one HTML file: figures and plots, without a script or anything from elsewhere.

use std::fmt::Write;

use super::{
    Fairness, Line,
    record::{EndLine, RoundLine},
};

mod plot;

use self::plot::{Level, Plot};

/// Text in plots is drawn larger where the page is narrow, since plots are as wide as the page.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2430;--faint:#5f6b7a;--line:#d5dbe3;--paper:#fff;--one:#1f6feb;--two:#b3541e}\
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--faint:#98a4b3;--line:#37414e;--paper:#12171e;--one:#6ea8ff;--two:#f0a36b}}\
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:52rem;margin:2rem auto;padding:0 1rem}\
h1,h2,td{overflow-wrap:anywhere}h2{font-size:1.15rem;margin:2rem 0 .5rem}\
table{border-collapse:collapse;margin:1rem 0;width:100%}th,td{text-align:left;vertical-align:top;padding:.3rem 0;border-bottom:1px solid var(--line)}\
th{font-weight:600;width:11rem;padding-right:1rem}svg{display:block;width:100%;height:auto;overflow:visible}\
svg text{font:12px system-ui,sans-serif;fill:var(--faint)}.axis{stroke:var(--line)}.curve{fill:none;stroke:var(--one);stroke-width:2}\
.level{stroke:var(--two);stroke-dasharray:5 4}svg text.name{fill:var(--two);paint-order:stroke;stroke:var(--paper);stroke-width:4px}p{color:var(--faint)}\
@media(max-width:40rem){body{margin:1rem auto}h1{font-size:1.5rem}th{width:7rem;padding-right:.75rem}svg text{font-size:24px}.curve{stroke-width:3}}";

/// The report of a simulation's lines.
pub fn html(lines: &[Line]) -> String {
    let mut page = String::new();
    let rounds: Vec<&RoundLine> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Round(round) => Some(round),
            _ => None,
        })
        .collect();
    head(&mut page, lines);
    summary(&mut page, lines);
    plots(&mut page, lines, &rounds);
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn head(page: &mut String, lines: &[Line]) {
    let title = lines.iter().find_map(|line| match line {
        Line::Start(start) => Some(format!("{} ({})", start.title, start.task)),
        _ => None,
    });
    let title = escape(&title.unwrap_or_default());
    // Writing to a string cannot fail, here and below.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>Simulation: {title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
    );
}

fn summary(page: &mut String, lines: &[Line]) {
    page.push_str("<table>\n");
    let mut noised = false;
    for line in lines {
        match line {
            Line::Start(it) => {
                noised = it.privacy.unit.is_some();
                let multiplier = it.noise_multiplier.map(|z| format!(", multiplier {z}"));
                let noise = it.privacy.noise.to_owned() + &multiplier.unwrap_or_default();
                let attack = it.attack.as_deref().unwrap_or("none");
                for (name, value) in [
                    ("parameters", it.parameters.to_string()),
                    ("strategy", format!("{}, {}", it.aggregation, it.server)),
                    ("privacy mode", it.privacy.mode.to_owned()),
                    ("noise", noise),
                    ("clients", format!("{}, {} in each round", it.clients, it.cohort)),
                    ("examples", format!("{}, split {}", it.examples, it.partition)),
                    ("malicious clients", format!("{} ({attack})", it.malicious)),
                    ("seed", it.seed.to_string()),
                ] {
                    row(page, name, &value);
                }
            }
            Line::Round(_) => {}
            Line::Baseline(it) => {
                let spread = spread(&it.fairness);
                row(
                    page,
                    it.baseline.name(),
                    &format!("{} {spread}", percent(it.accuracy)),
                );
                if let Some(loss) = it.loss_of_accuracy {
                    row(page, "accuracy loss, |V_FED − V_SUM|", &percent(loss));
                }
            }
            Line::End(it) => {
                let accuracy = format!("{} after {} rounds", percent(it.accuracy), it.rounds);
                row(page, "federated", &accuracy);
                row(page, "ε", &spent(it));
                row(page, "on each client's own examples", &spread(&it.fairness));
                row(page, "model", &it.model.to_string());
            }
        }
    }
    page.push_str("</table>\n");
    if noised {
        page.push_str(
            "<p>The noise of a simulation is made of its seed, and protects nobody: ε is what the same rounds cost with noise \
             that nobody knows.</p>\n",
        );
    }
}

/// The final ε, in words that say whose it is: `3.2 at δ = 0.00001: all updates of a client, the one that took part most often (add-remove)`.
pub fn spent(end: &EndLine) -> String {
    let EndLine { privacy, delta, .. } = end;
    match (end.epsilon, privacy.unit, privacy.client, privacy.adjacency) {
        (Some(epsilon), Some(unit), Some(client), Some(adjacency)) => {
            format!("{epsilon:.4} at δ = {delta}: {unit}, {client} ({adjacency})")
        }
        (None, Some(_), ..) => "nothing was spent".to_owned(),
        _ => "none: without noise there is no bound".to_owned(),
    }
}

fn plots(page: &mut String, lines: &[Line], rounds: &[&RoundLine]) {
    let series = |of: fn(&RoundLine) -> Option<f64>| -> Vec<(f64, f64)> {
        let point = |round: &&RoundLine| of(round).map(|value| (round.round as f64, value));
        rounds.iter().filter_map(point).collect()
    };
    let levels = lines.iter().filter_map(|line| match line {
        Line::Baseline(it) => Some(Level {
            name: it.baseline.name(),
            value: it.accuracy,
        }),
        _ => None,
    });
    let mut draw = |title: &str, x: &'static str, points: Vec<(f64, f64)>, levels: Vec<Level>| {
        if points.len() > 1 {
            let title = escape(title);
            let _ = writeln!(page, "<h2>{title}</h2>");
            let plot = Plot {
                title,
                x,
                points,
                levels,
            };
            page.push_str(&plot.svg());
        }
    };
    draw(
        "Held-out accuracy",
        "round",
        series(|it| it.accuracy),
        levels.collect(),
    );
    draw("Held-out loss", "round", series(|it| it.loss), vec![]);
    draw(
        "Training loss of the last local epoch",
        "round",
        series(|it| Some(it.train_loss)),
        vec![],
    );
    let end = lines.iter().find_map(|line| match line {
        Line::End(it) => Some(it),
        _ => None,
    });
    if let Some(it) = end
        && let (Some(unit), Some(client)) = (it.privacy.unit, it.privacy.client)
    {
        let title = format!("ε at δ = {}: {unit}, {client}", it.delta);
        draw(&title, "round", series(|it| it.epsilon), vec![]);
    }
    let mut sum = 0.0;
    let megabytes = rounds.iter().map(|round| {
        sum += (round.bytes_up + round.bytes_down) as f64 / 1e6;
        (round.round as f64, sum)
    });
    draw(
        "Megabytes sent and received, all clients",
        "round",
        megabytes.collect(),
        vec![],
    );
    if let Some(it) = end {
        let mut sorted = it.clients.clone();
        sorted.sort_by(f64::total_cmp);
        let points = (1..)
            .zip(sorted)
            .map(|(rank, accuracy)| (f64::from(rank), accuracy));
        let title = "The final model on each client's own examples, the worst first";
        draw(title, "client", points.collect(), vec![]);
    }
}

fn spread(fairness: &Fairness) -> String {
    format!(
        "(least {}, a tenth below {}, median {}, greatest {})",
        percent(fairness.least),
        percent(fairness.tenth),
        percent(fairness.median),
        percent(fairness.greatest)
    )
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn row(page: &mut String, name: &str, value: &str) {
    let _ = writeln!(
        page,
        "<tr><th scope=\"row\">{}</th><td>{}</td></tr>",
        escape(name),
        escape(value)
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
