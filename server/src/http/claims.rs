//! `POST /data/{partition}/claim`: hands each caller of the demo its own shard of the data, in turn.

use std::{
    collections::BTreeMap,
    path::Path as FilePath,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Json,
    extract::{Path, State},
};
use serde::Serialize;
use unsaid_protocol::ProblemKind;

use super::problem::Refused;
use crate::relay::Relay;

/// How many shards each partition has, and how many were claimed. In memory: a demo that starts again may hand out the
/// same shards again.
#[derive(Debug, Default)]
pub struct Claims {
    partitions: BTreeMap<String, (u64, AtomicU64)>,
}

/// The shard that a caller may load.
#[derive(Debug, Serialize)]
pub struct Claim {
    index: u64,
}

impl Claims {
    /// Every folder below `data` that holds `.shard` files is a partition.
    pub fn new(data: Option<&FilePath>) -> Self {
        let folders = data
            .and_then(|data| std::fs::read_dir(data).ok())
            .into_iter()
            .flatten()
            .flatten();
        let partitions = folders.filter_map(|folder| {
            let files = std::fs::read_dir(folder.path()).ok()?.flatten();
            let shards = files
                .filter(|file| file.path().extension().is_some_and(|kind| kind == "shard"))
                .count() as u64;
            let name = folder.file_name().into_string().ok()?;
            (shards > 0).then(|| (name, (shards, AtomicU64::new(0))))
        });
        Self {
            partitions: partitions.collect(),
        }
    }
}

/// Hands out the next shard of a partition, round robin.
pub async fn claim(
    State(relay): State<Arc<Relay>>,
    Path(partition): Path<String>,
) -> Result<Json<Claim>, Refused> {
    let none = || {
        Refused::new(
            ProblemKind::NotFound,
            "this relay has no such partition of demo data",
        )
    };
    let (shards, next) = relay.claims.partitions.get(&partition).ok_or_else(none)?;
    Ok(Json(Claim {
        index: next.fetch_add(1, Ordering::Relaxed) % shards,
    }))
}
