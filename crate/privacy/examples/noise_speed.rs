//! How long one sample takes: `cargo run --release -p unsaid-privacy --example noise_speed`.

use std::time::Instant;

use rand_chacha::{ChaCha12Rng, ChaCha20Rng};
use rand_core::{CryptoRng, SeedableRng};
use unsaid_privacy::{DiscreteGaussian, Encoding, LocalNoise, PrivacyError};

const DIMENSION: usize = 1_000_000;

fn main() -> Result<(), PrivacyError> {
    println!("discrete Gaussian, microseconds a sample (median of 5 runs of {DIMENSION})");
    println!("{:>12} {:>10} {:>10}", "sigma", "ChaCha20", "ChaCha12");
    for sigma in [1_u128, 50, 1_000, 16_000, 30_000, 1_000_000, 100_000_000] {
        let gaussian = DiscreteGaussian::with_variance(sigma * sigma, 1)?;
        let twenty = time(&gaussian, ChaCha20Rng::from_seed([1; 32]));
        let twelve = time(&gaussian, ChaCha12Rng::from_seed([1; 32]));
        println!("{sigma:>12} {twenty:>10.3} {twelve:>10.3}");
    }

    let encoding = Encoding::new(1.0, 1.0 / 1_024.0, DIMENSION)?;
    let noise = LocalNoise::new(&encoding, 1.0)?;
    let delta = vec![0.01; DIMENSION];
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    let start = Instant::now();
    let mut coordinates = encoding.encode(&delta, &mut rng)?.coordinates;
    let encoded = start.elapsed();
    noise.add(&mut coordinates, &mut rng)?;
    println!(
        "one update of {DIMENSION}: clip and round {encoded:?}, noise {:?}",
        start.elapsed() - encoded
    );
    Ok(())
}

fn time<R: CryptoRng>(gaussian: &DiscreteGaussian, mut rng: R) -> f64 {
    let mut runs: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            let mut sum = 0_i64;
            for _ in 0..DIMENSION {
                sum = sum.wrapping_add(gaussian.sample(&mut rng));
            }
            std::hint::black_box(sum);
            start.elapsed().as_secs_f64() * 1e6 / DIMENSION as f64
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[2]
}
