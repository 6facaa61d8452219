//! sqlx, kept from what it trusts a server with: it panics at lengths that do not fit.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use sqlx::{
    Column, Row, TypeInfo, ValueRef,
    postgres::{PgRow, PgTypeKind, PgValueFormat, PgValueRef},
    types::{Json, time::OffsetDateTime},
};

/// The numbers before an array's elements, and the length before each of them.
const ARRAY_HEAD: usize = 20;
const ELEMENT_HEAD: usize = 4;

/// What sqlx answers; if it panics, an error after which nobody uses the connection again.
pub(crate) async fn catch_panic<T>(asked: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    AssertUnwindSafe(asked).catch_unwind().await.unwrap_or_else(|_| Err(unsound("it made sqlx panic")))
}

fn unsound(what: &str) -> sqlx::Error {
    sqlx::Error::Protocol(what.to_owned())
}

/// What a question is answered with.
pub(crate) trait Answer {
    /// Reads each value once, and forgets it. A value that makes sqlx panic does so here, under guard; one
    /// that would have it make room without end is an error.
    fn decode_all(&self) -> sqlx::Result<()>;
}

impl Answer for Vec<PgRow> {
    fn decode_all(&self) -> sqlx::Result<()> {
        self.iter().try_for_each(Answer::decode_all)
    }
}

impl Answer for PgRow {
    fn decode_all(&self) -> sqlx::Result<()> {
        for column in self.columns() {
            let at = column.ordinal();
            let value = self.try_get_raw(at)?;
            if value.is_null() {
                continue;
            }
            let (info, text) = (column.type_info(), value.format() == PgValueFormat::Text);
            // Whether it can be read as what it is, its reader finds out.
            match info.name() {
                "BOOL" => drop(self.try_get::<bool, _>(at)),
                "FLOAT4" => drop(self.try_get::<f32, _>(at)),
                "FLOAT8" => drop(self.try_get::<f64, _>(at)),
                "TIMESTAMPTZ" => drop(self.try_get::<OffsetDateTime, _>(at)),
                "JSONB" => drop(self.try_get::<Json<serde::de::IgnoredAny>, _>(at)),
                // Read as any type, so nothing may be in it.
                "VOID" if bytes(&value)?.is_empty() => (),
                "VOID" => return Err(unsound("a value of no type")),
                _ if matches!(info.kind(), PgTypeKind::Array(_)) || info.name().ends_with("[]") => {
                    if !text && !is_array(bytes(&value)?) {
                        return Err(unsound("an array that is longer than its value"));
                    }
                    let _ = self.try_get::<Vec<Option<i64>>, _>(at);
                    let _ = self.try_get::<Vec<Option<i32>>, _>(at);
                    let _ = self.try_get::<Vec<Option<i16>>, _>(at);
                    let _ = self.try_get::<Vec<Option<f64>>, _>(at);
                    let _ = self.try_get::<Vec<Option<String>>, _>(at);
                }
                _ => (),
            }
        }
        Ok(())
    }
}

fn bytes<'a>(value: &PgValueRef<'a>) -> sqlx::Result<&'a [u8]> {
    value.as_bytes().map_err(|_| unsound("a value without bytes"))
}

/// Whether as many elements as it announces can be in it: sqlx makes room for them first.
fn is_array(value: &[u8]) -> bool {
    let number =
        |at: usize| value.get(at..).and_then(|rest| rest.first_chunk()).map(|n| u32::from_be_bytes(*n));
    match (number(0), number(12)) {
        (Some(0), _) => true,
        (Some(_), Some(elements)) => {
            let least = usize::try_from(elements).ok().and_then(|n| n.checked_mul(ELEMENT_HEAD));
            least.is_some_and(|least| least <= value.len().saturating_sub(ARRAY_HEAD))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_announces_no_more_than_it_holds() {
        let array = |elements: u32, held: usize| {
            let head = [1, 0, 20, elements, 1].map(u32::to_be_bytes).concat();
            [head, vec![0xff; held * ELEMENT_HEAD]].concat()
        };
        assert!(is_array(&0_u32.to_be_bytes()) && is_array(&array(0, 0)) && is_array(&array(3, 3)));
        for wrong in [array(3, 2), array(u32::MAX, 3), array(1 << 30, 3), Vec::new(), vec![0, 0, 0, 1]] {
            assert!(!is_array(&wrong), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_the_protocol() {
        let empty: Vec<u8> = Vec::new();
        let answer = catch_panic(async { Ok(empty[0]) }).await;
        assert!(matches!(answer, Err(sqlx::Error::Protocol(_))), "{answer:?}");
    }
}
