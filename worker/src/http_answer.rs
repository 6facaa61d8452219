//! Reads a handler's HTTP answer: bounded, and every way it can go wrong has a name.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Body;
use rowlock_crds::RetryPolicy;

use crate::answer::{Answer, REASON_MAX, RESULT_MAX, SNOOZE_MAX};

/// What was read of a body.
enum Read {
    Whole(Vec<u8>),
    /// More came than the bound; this much was kept and the rest was not read.
    Cut(Vec<u8>),
}

/// Turns the answer into what becomes of the task.
pub(crate) async fn read_answer<B>(response: Response<B>, retry: &RetryPolicy) -> Answer
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error,
{
    let (head, body) = response.into_parts();
    let status = head.status;
    let bound = if status.is_success() { RESULT_MAX } else { REASON_MAX };
    let read = match read_bounded(body, bound).await {
        Ok(read) => read,
        Err(error) => {
            let error = format!("HTTP {}, then the answer broke off: {error}", status.as_u16());
            return Answer::Broken { error };
        }
    };
    if status.is_success() {
        return match read {
            Read::Whole(body) => Answer::Done { result: text(body) },
            Read::Cut(_) => {
                tracing::warn!(
                    bound_bytes = RESULT_MAX,
                    "the handler's result is larger than the bound and was not kept; the task is complete"
                );
                Answer::Done { result: None }
            }
        };
    }
    let (Read::Whole(body) | Read::Cut(body)) = read;
    refuse(status, &head.headers, body, retry)
}

fn refuse(status: StatusCode, headers: &HeaderMap, body: Vec<u8>, retry: &RetryPolicy) -> Answer {
    let later = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    if later && let Some(delay) = retry_after(headers, SystemTime::now()) {
        return Answer::Snooze { delay };
    }
    let error = match text(body) {
        Some(body) => format!("HTTP {}: {body}", status.as_u16()),
        None => format!("HTTP {}", status.as_u16()),
    };
    if retry.is_final(status.as_u16()) { Answer::Final { error } } else { Answer::failed(error) }
}

/// Seconds or an HTTP date; what is neither counts as not sent.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = match seconds(value) {
        Some(seconds) => seconds,
        None => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(delay.min(SNOOZE_MAX))
}

/// Whole seconds; a fraction, which HTTP does not know but clients of rate limits send, counts as a whole one.
fn seconds(value: &str) -> Option<Duration> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
    if [whole, fraction].iter().any(|digits| digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()))
    {
        return None;
    }
    let more = u64::from(fraction.bytes().any(|digit| digit != b'0'));
    // More digits than fit are more than the bound.
    Some(Duration::from_secs(whole.parse::<u64>().unwrap_or(u64::MAX).saturating_add(more)))
}

/// Stops reading at the bound; dropping the rest closes the connection, which is cheaper than draining it.
async fn read_bounded<B>(mut body: B, bound: usize) -> Result<Read, B::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut kept = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = bound - kept.len();
        if room < data.len() {
            kept.extend_from_slice(&data[..room]);
            return Ok(Read::Cut(kept));
        }
        kept.extend_from_slice(&data);
    }
    Ok(Read::Whole(kept))
}

fn text(body: Vec<u8>) -> Option<String> {
    if body.is_empty() {
        return None;
    }
    let text = String::from_utf8(body).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
    Some(crate::answer::clean(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expected: Option<u64>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, value.parse().unwrap());
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(retry_after(&headers, now).map(|d| d.as_secs()), expected, "{value}");
    }

    #[test]
    fn retry_after_takes_seconds_and_dates_within_a_day() {
        check("0", Some(0));
        check(" 17 ", Some(17));
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some(60));
        check("Sun, 06 Nov 1994 08:49:00 GMT", Some(0));
        check("999999999999", Some(86_400));
        check("99999999999999999999999", Some(86_400));
        check("Sunday, 06-Nov-94 08:50:37 GMT", Some(60));
        check("soon", None);
        check("-1", None);
        check("", None);
    }

    #[test]
    fn a_fraction_of_a_second_is_rounded_up() {
        check("1.5", Some(2));
        check("0.001", Some(1));
        check("2.0", Some(2));
        check("1.", None);
        check(".5", None);
        check("1.5s", None);
        check("1e3", None);
        check("-0.5", None);
    }
}
