//! Pearson's chi-square test, for the tests of this crate.

/// The probability with which each statistical test would fail on a correct sampler, were its seed random.
pub(crate) const FALSE_ALARM: f64 = 1e-6;

/// The probability that a chi-square variable of `freedom` degrees is at least `statistic`: the regularised incomplete gamma function
/// Q(freedom/2, statistic/2), by the recurrence Q(a + 1, x) = Q(a, x) + xᵃe⁻ˣ/Γ(a + 1) from Q(1/2, x) = erfc(√x) or Q(1, x) = e⁻ˣ.
pub(crate) fn chi_square_p(statistic: f64, freedom: usize) -> f64 {
    let x = statistic / 2.0;
    let odd = freedom % 2 == 1;
    let (mut a, mut q, mut log_term) = if odd {
        // The term at a = 1/2: x^(1/2)·e⁻ˣ/Γ(3/2), Γ(3/2) = √π/2
        (
            0.5,
            erfc(x.sqrt()),
            0.5 * x.ln() - x - (std::f64::consts::PI.sqrt() / 2.0).ln(),
        )
    } else {
        (1.0, (-x).exp(), x.ln() - x)
    };
    while a + 0.5 < freedom as f64 / 2.0 {
        q += log_term.exp();
        a += 1.0;
        log_term += (x / a).ln();
    }
    q.min(1.0)
}

/// The complementary error function for 0 ≤ `z`: by its continued fraction above 2, and by its series below.
pub(crate) fn erfc(z: f64) -> f64 {
    let scale = (-z * z).exp() / std::f64::consts::PI.sqrt();
    if z < 2.0 {
        // erf(z) = 2/√π·e^(−z²)·Σ 2ⁿz^(2n+1)/(2n+1)!!
        let (mut term, mut sum, mut n) = (z, z, 0.0);
        while term > 1e-17 * sum {
            n += 1.0;
            term *= 2.0 * z * z / (2.0 * n + 1.0);
            sum += term;
        }
        1.0 - 2.0 * scale * sum
    } else {
        let tail = (1..=200).rev().fold(z, |tail, n| z + f64::from(n) / 2.0 / tail);
        scale / tail
    }
}

/// The exact probabilities of a distribution on the integers, in cells that a sample of a known size fills well.
pub(crate) struct Fit {
    /// The last number of each cell but the last.
    ends: Vec<i64>,
    /// The probability of each cell.
    cells: Vec<f64>,
}

impl Fit {
    /// Cells of at least 1/500 of all and at least 20 expected among `samples`, from `weight` on −`reach`..=`reach`, beyond which there must be
    /// next to nothing.
    pub(crate) fn new(weight: impl Fn(i64) -> f64, reach: f64, samples: usize) -> Self {
        let reach = reach as i64;
        // From the outside in on both sides, so that small weights are not lost beside large ones.
        let half: f64 = (1..=reach).rev().map(&weight).sum();
        let total = weight(0) + 2.0 * half;
        let least = (20.0 / samples as f64).max(0.002);
        let (mut ends, mut cells, mut cell) = (Vec::new(), Vec::new(), 0.0);
        for x in -reach..=reach {
            cell += weight(x) / total;
            if cell >= least {
                ends.push(x);
                cells.push(cell);
                cell = 0.0;
            }
        }
        // What is left belongs to the last cell, which has no end.
        ends.pop();
        if let Some(last) = cells.last_mut() {
            *last += cell;
        }
        Self { ends, cells }
    }

    pub(crate) fn p(&self, samples: &[i64]) -> f64 {
        let mut counts = vec![0_u32; self.cells.len()];
        for x in samples {
            counts[self.ends.partition_point(|end| end < x)] += 1;
        }
        let statistic = counts.iter().zip(&self.cells).map(|(count, share)| {
            let expected = share * samples.len() as f64;
            (f64::from(*count) - expected).powi(2) / expected
        });
        chi_square_p(statistic.sum(), self.cells.len() - 1)
    }
}

#[test]
fn the_chi_square_tail_has_its_tabulated_values() {
    // Any table of the 5 % and 0.1 % points.
    for (freedom, five_percent, one_in_a_thousand) in [
        (1, 3.841_459, 10.827_57),
        (2, 5.991_465, 13.815_51),
        (5, 11.070_50, 20.515_01),
        (10, 18.307_04, 29.588_30),
        (100, 124.342_1, 149.449_3),
    ] {
        assert!(
            (chi_square_p(five_percent, freedom) - 0.05).abs() < 1e-6,
            "{freedom}"
        );
        assert!(
            (chi_square_p(one_in_a_thousand, freedom) - 0.001).abs() < 1e-7,
            "{freedom}"
        );
    }
}
