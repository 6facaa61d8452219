//! Protection from panics of sqlx, which trusts the lengths that a server sends.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use sqlx::{
    Column, Row, TypeInfo, ValueRef,
    postgres::{PgRow, PgTypeKind, PgValueFormat, PgValueRef},
    types::{Json, time::OffsetDateTime},
};

/// The number of bytes before the elements of an array, and before each element.
const ARRAY_HEAD: usize = 20;
const ELEMENT_HEAD: usize = 4;

/// Turns a panic of sqlx into an error, after which the connection is not used again.
pub(crate) async fn catch_panic<T>(query: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    AssertUnwindSafe(query)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Err(invalid("an answer at which sqlx panics")))
}

fn invalid(what: &str) -> sqlx::Error {
    sqlx::Error::Protocol(what.to_owned())
}

/// The answer to a query.
pub(crate) trait Answer {
    /// Decodes each value once and drops it, so that a panic happens here, where it is caught. A value that
    /// would make sqlx allocate without limit is an error.
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
            // Decoding errors are left to the caller that reads the value.
            match info.name() {
                "BOOL" => drop(self.try_get::<bool, _>(at)),
                "FLOAT4" => drop(self.try_get::<f32, _>(at)),
                "FLOAT8" => drop(self.try_get::<f64, _>(at)),
                "TIMESTAMPTZ" => drop(self.try_get::<OffsetDateTime, _>(at)),
                "JSONB" => drop(self.try_get::<Json<serde::de::IgnoredAny>, _>(at)),
                // sqlx decodes VOID as any type, so the value must be empty.
                "VOID" if bytes(&value)?.is_empty() => (),
                "VOID" => return Err(invalid("a value of type void that is not empty")),
                _ if matches!(info.kind(), PgTypeKind::Array(_)) || info.name().ends_with("[]") => {
                    if !text && !is_array(bytes(&value)?) {
                        return Err(invalid("an array with more elements than its value can hold"));
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
    value.as_bytes().map_err(|_| invalid("a value without bytes"))
}

/// Whether the value can hold the number of elements that it announces: sqlx allocates them first.
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
    fn an_array_that_announces_more_elements_than_it_holds_is_invalid() {
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
    async fn a_panic_becomes_a_protocol_error() {
        let empty: Vec<u8> = Vec::new();
        let answer = catch_panic(async { Ok(empty[0]) }).await;
        assert!(matches!(answer, Err(sqlx::Error::Protocol(_))), "{answer:?}");
    }
}
