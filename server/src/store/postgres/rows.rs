//! Reading rows, and numbers as the database has them.

use tokio_postgres::Row;

use super::link::said;
use crate::{
    lineage::RoundRecord,
    store::{StoreError, from_json, to_json},
};

pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    column: usize,
) -> Result<T, StoreError> {
    row.try_get(column).map_err(said)
}

pub(super) fn array<const N: usize>(row: &Row, column: usize) -> Result<[u8; N], StoreError> {
    let found: &[u8] = get(row, column)?;
    found
        .try_into()
        .map_err(|_| StoreError(format!("an id has {} bytes", found.len())))
}

pub(super) fn metrics(row: &Row) -> Result<RoundRecord, StoreError> {
    from_json(get::<&str>(row, 0)?.as_bytes())
}

pub(super) fn text(value: &impl serde::Serialize) -> Result<String, StoreError> {
    String::from_utf8(to_json(value)?).map_err(StoreError::new)
}

pub(super) fn to_i64(number: u64) -> Result<i64, StoreError> {
    number.try_into().map_err(StoreError::new)
}

pub(super) fn to_i64s(numbers: impl Iterator<Item = u64>) -> Result<Vec<i64>, StoreError> {
    numbers.map(to_i64).collect()
}

pub(super) fn to_u64(number: i64) -> Result<u64, StoreError> {
    number.try_into().map_err(StoreError::new)
}
