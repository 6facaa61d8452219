//! Reads a handler's HTTP answer, up to a limit.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper::body::Body;
use rowlock_crds::RetryPolicy;

use crate::handler::outcome::{Answer, ERROR_MAX, RESULT_MAX, Reason, SNOOZE_MAX};
use crate::throttled_log::LogThrottle;

/// How many bytes of a header an error shows: enough for any address.
const HEADER_TEXT_MAX: usize = 1024;

/// The part of a body that was read.
enum Read {
    Whole(Vec<u8>),
    /// The body is larger than the limit; this is its beginning, and the rest was not read.
    Truncated(Vec<u8>),
}

/// Reads the answer. `request_path` is the path and query of the request.
pub(crate) async fn read_answer<B>(response: Response<B>, retry: &RetryPolicy, request_path: &str) -> Answer
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error,
{
    let (head, body) = response.into_parts();
    let status = head.status;
    let bound = if status.is_success() { RESULT_MAX } else { ERROR_MAX };
    let read = match read_bounded(body, bound).await {
        Ok(read) => read,
        Err(error) => {
            let error = format!("HTTP {}, then the connection broke: {error}", status.as_u16());
            return Answer::Broken { error };
        }
    };
    let coding = coding(&head.headers);
    if status.is_success() {
        return Answer::Done { result: result(read, coding.as_deref()) };
    }
    let (Read::Whole(body) | Read::Truncated(body)) = read;
    let detail = match (redirected(status, &head.headers, request_path), coding) {
        (Some(redirected), _) => Some(redirected),
        (None, Some(coding)) => Some(format!("the body is compressed ({coding}) and cannot be read")),
        (None, None) => text(body),
    };
    refuse(status, &head.headers, detail, retry)
}

/// The answer for a status whose headers or body cannot be read. A success status still counts, because the
/// work is done.
pub(crate) fn unreadable(status: StatusCode, why: &str, retry: &RetryPolicy) -> Answer {
    if status.is_success() {
        warn_discarded(&format!("the answer cannot be read beyond its status: {why}"));
        return Answer::Done { result: None };
    }
    let detail = format!("the rest of the answer cannot be read: {why}");
    refuse(status, &HeaderMap::new(), Some(detail), retry)
}

/// The result to keep from the body of a successful answer.
fn result(read: Read, coding: Option<&str>) -> Option<String> {
    match (read, coding) {
        (Read::Whole(body), _) if body.is_empty() => None,
        (_, Some(coding)) => {
            warn_discarded(&format!(
                "it is compressed ({coding}), although the request says `accept-encoding: identity`"
            ));
            None
        }
        (Read::Whole(body), None) => text(body),
        (Read::Truncated(_), None) => {
            warn_discarded(&format!("it is larger than {RESULT_MAX} bytes"));
            None
        }
    }
}

/// Logged rarely: a handler whose result cannot be kept once usually has that problem with every task.
fn warn_discarded(why: &str) {
    static THROTTLE: LogThrottle = LogThrottle::new();
    if let Some(tasks) = THROTTLE.record(1) {
        tracing::warn!(tasks, why, "results of the handler were not kept; their tasks are completed");
    }
}

/// The content coding of the body, if there is one although the request did not ask for it.
fn coding(headers: &HeaderMap) -> Option<String> {
    let coding = header_text(headers.get(header::CONTENT_ENCODING)?);
    (!coding.is_empty() && !coding.eq_ignore_ascii_case("identity")).then_some(coding)
}

/// For a redirect: its target and what to change. Redirects are not followed, because they lead to another
/// server or turn the POST into a GET.
fn redirected(status: StatusCode, headers: &HeaderMap, request_path: &str) -> Option<String> {
    let to = headers.get(header::LOCATION).filter(|_| status.is_redirection()).map(header_text)?;
    let uri: Option<Uri> = to.parse().ok();
    let path = uri.as_ref().and_then(Uri::path_and_query).map(PathAndQuery::as_str);
    let fix = if uri.as_ref().and_then(Uri::scheme_str) == Some("https") {
        "let the handler accept plain HTTP on its port".to_owned()
    } else if let Some(path) =
        path.filter(|path| *path != request_path && differs_by_slash(path, request_path))
    {
        format!("only a slash differs: set spec.handler.http.path, or the path of --handler-url, to {path}")
    } else {
        format!("let the handler answer at {request_path} itself")
    };
    Some(format!("it redirects to {to}, and redirects are not followed; {fix}"))
}

fn differs_by_slash(one: &str, other: &str) -> bool {
    let bare = |text: &str| text.split('?').next().unwrap_or_default().trim_end_matches('/').to_owned();
    bare(one) == bare(other)
}

/// A header's value as text, cut to the limit.
fn header_text(value: &HeaderValue) -> String {
    let bytes = &value.as_bytes()[..value.len().min(HEADER_TEXT_MAX)];
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn refuse(status: StatusCode, headers: &HeaderMap, detail: Option<String>, retry: &RetryPolicy) -> Answer {
    let later = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    if later && let Some(delay) = retry_after(headers, SystemTime::now()) {
        return Answer::Snooze { delay };
    }
    let error = match detail {
        Some(detail) => format!("HTTP {}: {detail}", status.as_u16()),
        None => format!("HTTP {}", status.as_u16()),
    };
    let reason = match status.as_u16() {
        400..=499 => Reason::Http4xx,
        500..=599 => Reason::Http5xx,
        _ => Reason::Error,
    };
    if retry.is_final(status.as_u16()) {
        Answer::Final { error, reason }
    } else {
        Answer::failed_by(reason, error)
    }
}

/// The delay that `Retry-After` asks for, in seconds or as an HTTP date. Any other value is ignored.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = match seconds(value) {
        Some(seconds) => seconds,
        None => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(delay.min(SNOOZE_MAX))
}

/// Seconds, rounded up. HTTP has no fractions here, but some rate limiters send them.
fn seconds(value: &str) -> Option<Duration> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
    if [whole, fraction].iter().any(|digits| digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()))
    {
        return None;
    }
    let more = u64::from(fraction.bytes().any(|digit| digit != b'0'));
    // A number too large for u64 is above the limit anyway.
    Some(Duration::from_secs(whole.parse::<u64>().unwrap_or(u64::MAX).saturating_add(more)))
}

/// Stops reading at the limit. Dropping the rest closes the connection, which is cheaper than reading it.
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
            return Ok(Read::Truncated(kept));
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
    Some(crate::handler::outcome::strip_nul(&text))
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
    fn retry_after_may_be_seconds_or_a_date_up_to_a_day_ahead() {
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
