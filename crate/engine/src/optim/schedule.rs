//! How the step size changes over the steps.

use super::in_range;
use crate::{ScheduleSpec, SpecError};

/// Checks a schedule's numbers.
pub(crate) fn check(schedule: ScheduleSpec) -> Result<ScheduleSpec, SpecError> {
    match schedule {
        ScheduleSpec::Linear { end } | ScheduleSpec::Cosine { end } => {
            in_range("schedule.end", end, (0.0..=1.0).contains(&end), "from 0 to 1")?;
        }
        ScheduleSpec::Step { factor, .. } => {
            let fits = factor > 0.0 && factor <= 1.0;
            in_range("schedule.factor", factor, fits, "above 0 and at most 1")?;
        }
        ScheduleSpec::Constant => {}
    }
    Ok(schedule)
}

/// The factor of step `step` of `steps`, both from 1.
pub(crate) fn factor(schedule: ScheduleSpec, step: u32, steps: u32) -> f32 {
    let done = f64::from(step - 1) / f64::from((steps - 1).max(1));
    let between = |end: f32, share: f64| (f64::from(end) + (1.0 - f64::from(end)) * share) as f32;
    match schedule {
        ScheduleSpec::Constant => 1.0,
        ScheduleSpec::Linear { end } => between(end, 1.0 - done),
        ScheduleSpec::Cosine { end } => between(end, half_cosine(done)),
        ScheduleSpec::Step { every, factor } => factor.powi(((step - 1) / every.get()) as i32),
    }
}

/// `(1 + cos(π·done)) / 2` for `done` from 0 to 1. The library's cosine is for every number, which takes 7 kB of wasm.
fn half_cosine(done: f64) -> f64 {
    if done > 0.5 {
        return 1.0 - half_cosine(1.0 - done);
    }
    let square = (std::f64::consts::PI * done).powi(2);
    // The series of the cosine from its last term: what is left out is below (π/2)²⁴ / 24! < 10⁻¹⁹.
    let cosine = (1..12).rev().fold(1.0, |rest, k| {
        1.0 - rest * square / f64::from(2 * k * (2 * k - 1))
    });
    (1.0 + cosine) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_cosine_is_the_library_s_to_rounding() {
        for step in 0..=10_000 {
            let done = f64::from(step) / 10_000.0;
            let exact = (1.0 + (std::f64::consts::PI * done).cos()) / 2.0;
            // A dozen operations on numbers up to 1, each rounded to 2⁻⁵³.
            assert!(
                (half_cosine(done) - exact).abs() < 12.0 * f64::EPSILON,
                "at {done}"
            );
        }
    }

    #[test]
    fn schedules_begin_at_one_and_end_where_they_should() {
        let linear = ScheduleSpec::Linear { end: 0.5 };
        let cosine = ScheduleSpec::Cosine { end: 0.0 };
        assert_eq!([1, 2, 3].map(|step| factor(linear, step, 3)), [1.0, 0.75, 0.5]);
        assert_eq!([1, 2, 3].map(|step| factor(cosine, step, 3)), [1.0, 0.5, 0.0]);
        let step = ScheduleSpec::Step {
            every: 2.try_into().unwrap(),
            factor: 0.5,
        };
        assert_eq!([1, 2, 3, 5].map(|at| factor(step, at, 9)), [1.0, 1.0, 0.5, 0.25]);
        assert_eq!(factor(linear, 1, 1), 1.0);
        assert!(check(ScheduleSpec::Linear { end: 1.5 }).is_err());
        assert!(check(ScheduleSpec::Cosine { end: f32::NAN }).is_err());
    }
}
