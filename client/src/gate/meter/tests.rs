#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use super::*;
use crate::gate::config::tests::config;
use crate::gate::price::Route;
use proptest::prelude::*;

fn route(unit: &str) -> Route {
    config(&format!("[[route]]\nmatch = \"/a\"\nunit = {{ {unit} }}\n")).table.routes()[0].clone()
}

/// An upstream's answer.
#[derive(Default, Clone, Copy)]
struct Answer<'a> {
    headers: &'a [(&'a str, &'a str)],
    body: &'a [u8],
    trailers: &'a [(&'a str, &'a str)],
}

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    map
}

fn meter(route: &Route, answer: Answer<'_>, size: usize) -> Metered {
    let mut meter = Meter::new(route.price.as_ref().unwrap(), route.metering.as_ref());
    meter.request_body(5);
    meter.head(&map(answer.headers));
    for piece in answer.body.chunks(size) {
        meter.body(piece);
    }
    if !answer.trailers.is_empty() {
        meter.trailers(&map(answer.trailers));
    }
    meter.finish()
}

/// The units in answers cut in any way; all the same.
fn units(route: &Route, answer: Answer<'_>) -> Result<Units, MeterError> {
    let whole = meter(route, answer, usize::MAX);
    assert_eq!((whole.usage.request_bytes, whole.usage.response_bytes), (5, answer.body.len() as u64));
    for size in [1, 2, 3, 5, 8, 64] {
        assert_eq!(meter(route, answer, size), whole, "by {size}");
    }
    whole.fault.map_or(Ok(whole.usage.units), Err)
}

const SSE: &[(&str, &str)] = &[("content-type", "text/event-stream; charset=utf-8")];
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

#[test]
fn header_is_a_whole_number_once() {
    let route = route("from = \"header:x-units\", price = \"1\", max = 10");
    let read = |values: &[&str]| {
        let headers: Vec<_> = values.iter().map(|value| ("X-Units", *value)).collect();
        units(&route, Answer { headers: &headers, ..Answer::default() })
    };
    assert_eq!(read(&["7"]), Ok(Units::plain(7)));
    assert_eq!(read(&[" 7 "]), Ok(Units::plain(7)));
    assert_eq!(read(&["0"]), Ok(Units::plain(0)));
    assert_eq!(read(&["18446744073709551615"]), Ok(Units::plain(u64::MAX)));
    for (values, fault) in [
        (&[][..], MeterError::Missing),
        (&["7", "7"], MeterError::Repeated),
        (&[""], MeterError::NotANumber),
        (&["seven"], MeterError::NotANumber),
        (&["7,8"], MeterError::NotANumber),
        (&["+7"], MeterError::NotANumber),
        (&["0x7"], MeterError::NotANumber),
        (&["-7"], MeterError::Negative),
        (&["7.0"], MeterError::Fraction),
        (&["18446744073709551616"], MeterError::TooLarge),
    ] {
        assert_eq!(read(values), Err(fault), "{values:?}");
    }
}

#[test]
fn trailer_is_read_and_a_header_of_its_name_is_not() {
    let route = route("from = \"trailer:x-units\", price = \"1\", max = 10");
    assert!(needs_trailers(route.metering.as_ref()));
    let trailers = &[("x-units", "3")][..];
    assert_eq!(units(&route, Answer { trailers, ..Answer::default() }), Ok(Units::plain(3)));
    assert_eq!(units(&route, Answer { headers: trailers, ..Answer::default() }), Err(MeterError::Missing));
}

#[test]
fn each_request_is_a_unit_where_requests_are_counted() {
    let route = route("from = \"requests\", tiers = [{ up_to = 2, price = \"5\" }, { price = \"3\" }]");
    let metered = meter(&route, Answer::default(), 1);
    let price = route.price.as_ref().unwrap();
    let charges: Vec<String> = (0..4).map(|before| price.charge(&metered.usage, before).to_string()).collect();
    assert_eq!(charges, ["5", "5", "3", "3"]);
}

#[test]
fn json_place_is_read_whatever_stands_around_it() {
    let route = route("from = \"json:/usage/total_tokens\", price = \"1\", max = 10");
    assert!(needs_plain_body(route.metering.as_ref()));
    let read = |body: &str| units(&route, Answer { headers: JSON, body: body.as_bytes(), ..Answer::default() });
    assert_eq!(
        read(r#"{"text":"\"usage\": {\"total_tokens\": 1}", "usage":{"total_tokens":42}}"#),
        Ok(Units::plain(42))
    );
    for (body, fault) in [
        ("", MeterError::Missing),
        ("{}", MeterError::Missing),
        (r#"{"usage":null}"#, MeterError::Missing),
        (r#"{"usage":{"total_tokens":-1}}"#, MeterError::Negative),
        (r#"{"usage":{"total_tokens":1.5}}"#, MeterError::Fraction),
        (r#"{"usage":{"total_tokens":"9"}}"#, MeterError::NotANumber),
        (r#"{"usage":{"total_tokens":99999999999999999999}}"#, MeterError::TooLarge),
        (r#"{"usage":{"total_tokens":9}"#, MeterError::NotJson),
        (r#"{"usage":{"total_tokens":9"#, MeterError::NotJson),
        ("<html>", MeterError::NotJson),
    ] {
        assert_eq!(read(body), Err(fault), "{body}");
    }
}

#[test]
fn compressed_answer_is_not_read() {
    let route = route("from = \"json:/n\", price = \"1\", max = 10");
    for (encoding, read) in
        [("gzip", false), ("br", false), ("identity", true), ("Identity", true), ("gzip, identity", false)]
    {
        let headers = &[("content-encoding", encoding)];
        let expected = if read { Ok(Units::plain(2)) } else { Err(MeterError::Encoded) };
        assert_eq!(units(&route, Answer { headers, body: b"{\"n\":2}", trailers: &[] }), expected);
    }
}

#[test]
fn lines_of_json_say_it_last() {
    let route = route("from = \"json:/eval_count\", price = \"1\", max = 10");
    let headers = &[("content-type", "application/x-ndjson")];
    let read = |body: &str| units(&route, Answer { headers, body: body.as_bytes(), trailers: &[] });
    assert_eq!(
        read("{\"response\":\"a\"}\n{\"response\":\"b\",\"eval_count\":2}\n{\"done\":true,\"eval_count\":9}\n"),
        Ok(Units::plain(9))
    );
    assert_eq!(read("{\"eval_count\":2}\n{\"eval_count\":3}"), Ok(Units::plain(3)));
    assert_eq!(read("not json {\n{\"eval_count\":2}\n{\"eval_count\":3"), Ok(Units::plain(2)));
    assert_eq!(read("\n\n"), Err(MeterError::Missing));
}

fn openai() -> Route {
    route("from = \"openai\", input = \"2\", output = \"6\", cached = \"1\", max = 1000")
}

fn anthropic() -> Route {
    route("from = \"anthropic\", input = \"2\", output = \"6\", cached = \"1\", cache_write = \"3\", max = 1000")
}

#[test]
fn openai_answer_has_prompt_and_completion_and_counts_cached_tokens_once() {
    let body = br#"{"id":"chatcmpl-B9","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"{\"usage\":{\"completion_tokens\":0}}"},"finish_reason":"stop"}],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":3}},"service_tier":"default"}"#;
    let read = units(&openai(), Answer { headers: JSON, body, trailers: &[] });
    let expected = Units { input: 15, cached: 4, output: 10, ..Units::default() };
    assert_eq!(read, Ok(expected));
    let used = Usage { units: expected, ..Usage::default() };
    assert_eq!(openai().price.unwrap().charge(&used, 0).to_string(), "94");
}

#[test]
fn openai_embedding_has_a_prompt_only() {
    let body = br#"{"object":"list","data":[{"object":"embedding","embedding":[0.0023,-0.009],"index":0}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#;
    let read = units(&openai(), Answer { headers: JSON, body, trailers: &[] });
    assert_eq!(read, Ok(Units { input: 8, ..Units::default() }));
}

#[test]
fn openai_stream_says_it_in_the_last_piece() {
    let body = b"data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}],\"usage\":null}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11}}\n\n\
        data: [DONE]\n\n";
    let read = units(&openai(), Answer { headers: SSE, body, trailers: &[] });
    assert_eq!(read, Ok(Units { input: 9, output: 2, ..Units::default() }));
}

#[test]
fn openai_stream_without_usage_has_none() {
    let body = b"data: {\"choices\":[{\"delta\":{\"content\":\"{\\\"usage\\\":{\\\"prompt_tokens\\\":1}}\"}}]}\n\ndata: [DONE]\n\n";
    assert_eq!(units(&openai(), Answer { headers: SSE, body, trailers: &[] }), Err(MeterError::Missing));
}

#[test]
fn openai_responses_say_it_inside_the_response() {
    let body =
        b"event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\n\
        event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":37,\
        \"input_tokens_details\":{\"cached_tokens\":7},\"output_tokens\":11,\"total_tokens\":48}}}\n\n";
    let read = units(&openai(), Answer { headers: SSE, body, trailers: &[] });
    assert_eq!(read, Ok(Units { input: 30, cached: 7, output: 11, ..Units::default() }));
    let body = br#"{"object":"response","usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":0},"output_tokens":87}}"#;
    let read = units(&openai(), Answer { headers: JSON, body, trailers: &[] });
    assert_eq!(read, Ok(Units { input: 36, output: 87, ..Units::default() }));
}

#[test]
fn openai_report_with_more_cached_tokens_than_tokens_is_no_report() {
    let body = br#"{"usage":{"prompt_tokens":3,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":4}}}"#;
    assert_eq!(units(&openai(), Answer { headers: JSON, body, trailers: &[] }), Err(MeterError::Contradiction));
}

const ANTHROPIC_STREAM: &[u8] = b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"content\":[],\"usage\":{\"input_tokens\":25,\"cache_creation_input_tokens\":3,\"cache_read_input_tokens\":100,\"output_tokens\":1}}}\n\n\
    event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n\
    event: ping\ndata: {\"type\": \"ping\"}\n\n\
    event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"{\\\"usage\\\":{\\\"output_tokens\\\":9999}}\"}}\n\n\
    event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":8}}\n\n\
    event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":15}}\n\n\
    event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

#[test]
fn anthropic_stream_counts_the_prompt_at_the_start_and_the_answer_cumulatively() {
    let read = units(&anthropic(), Answer { headers: SSE, body: ANTHROPIC_STREAM, trailers: &[] });
    assert_eq!(read, Ok(Units { plain: 0, input: 25, cached: 100, cache_write: 3, output: 15 }));
}

#[test]
fn anthropic_stream_that_breaks_off_counts_what_was_said() {
    let end = ANTHROPIC_STREAM.windows(8).rposition(|part| part == b"message_").unwrap();
    let until = ANTHROPIC_STREAM.windows(20).position(|part| part == b"event: message_delta").unwrap();
    let read = |body| units(&anthropic(), Answer { headers: SSE, body, trailers: &[] });
    assert_eq!(read(&ANTHROPIC_STREAM[..end]).unwrap().output, 15);
    assert_eq!(read(&ANTHROPIC_STREAM[..until]).unwrap().output, 1);
    // In the middle of the first report.
    assert_eq!(read(&ANTHROPIC_STREAM[..120]), Err(MeterError::Missing));
}

#[test]
fn anthropic_answer_counts_kinds_apart() {
    let body = br#"{"type":"message","content":[{"type":"text","text":"Hi"}],"usage":{"input_tokens":12,"cache_creation_input_tokens":0,"cache_read_input_tokens":null,"output_tokens":6}}"#;
    let read = units(&anthropic(), Answer { headers: JSON, body, trailers: &[] });
    assert_eq!(read, Ok(Units { input: 12, output: 6, ..Units::default() }));
}

#[test]
fn more_than_the_most_is_charged_as_the_most() {
    let route = route("from = \"header:x\", price = \"1\", max = 10");
    let price = route.price.as_ref().unwrap();
    for (count, charge, beyond) in [("10", "10", false), ("11", "10", true), ("18446744073709551615", "10", true)] {
        let metered = meter(&route, Answer { headers: &[("x", count)], ..Answer::default() }, 1);
        assert_eq!(price.charge(&metered.usage, 0).to_string(), charge);
        assert_eq!(price.exceeds(&metered.usage), beyond);
    }
}

#[test]
fn answer_without_a_report_costs_nothing_in_units_or_the_most() {
    for (unreported, from, charge) in [
        ("nothing", "from = \"header:x\", price = \"1\", max = 10", "0"),
        ("most", "from = \"header:x\", price = \"1\", max = 10", "10"),
        ("nothing", "from = \"openai\", input = \"1\", output = \"2\", cached = \"3\", max = 10", "0"),
        ("most", "from = \"openai\", input = \"1\", output = \"2\", cached = \"3\", max = 10", "50"),
        ("most", "from = \"anthropic\", input = \"1\", output = \"2\", cache_write = \"4\", max = 10", "60"),
    ] {
        let route = route(&format!("{from}, unreported = \"{unreported}\""));
        let price = route.price.as_ref().unwrap();
        let metered = meter(&route, Answer { headers: JSON, body: b"{}", trailers: &[] }, 1);
        assert_eq!(metered.fault, Some(MeterError::Missing));
        assert_eq!(price.charge(&metered.usage, 0).to_string(), charge, "{from}");
        assert!(charge == "0" || price.charge(&metered.usage, 0) == price.most());
    }
}

#[test]
fn fixed_price_needs_no_reader() {
    let route = config("[[route]]\nmatch = \"/a\"\nprice = \"1\"\n").table.routes()[0].clone();
    let metered = meter(&route, Answer { headers: JSON, body: b"{", trailers: &[] }, 1);
    assert_eq!((metered.fault, metered.usage.units), (None, Units::default()));
    assert!(!needs_plain_body(route.metering.as_ref()) && !needs_trailers(route.metering.as_ref()));
}

fn any_kind() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("text/event-stream"), Just("application/json"), Just("application/x-ndjson"), Just("text/html")]
}

proptest! {
    #[test]
    fn meter_takes_any_bytes_cut_in_any_way(
        kind in any_kind(), body in proptest::collection::vec(any::<u8>(), 0..300), size in 1_usize..50,
    ) {
        let headers = &[("content-type", kind)];
        let answer = Answer { headers, body: &body, trailers: &[] };
        for route in [openai(), anthropic()] {
            prop_assert_eq!(meter(&route, answer, size), meter(&route, answer, usize::MAX));
        }
    }

    #[test]
    fn meter_takes_broken_streams_cut_in_any_way(
        kind in any_kind(), from in 0_usize..900, to in 0_usize..900, swap in 0_usize..900, byte in any::<u8>(), size in 1_usize..50,
    ) {
        let mut body = ANTHROPIC_STREAM.to_vec();
        let last = body.len() - 1;
        body[swap.min(last)] = byte;
        let (from, to) = (from.min(to).min(last), from.max(to).min(last));
        let headers = &[("content-type", kind)];
        let answer = Answer { headers, body: &body[from..to], trailers: &[] };
        for route in [openai(), anthropic()] {
            prop_assert_eq!(meter(&route, answer, size), meter(&route, answer, usize::MAX));
        }
    }

    #[test]
    fn meter_reads_every_count_in_every_form(input in 0_u64..1_000, output in 0_u64..1_000, size in 1_usize..50) {
        let usage = format!("\"usage\":{{\"input_tokens\":{input},\"output_tokens\":{output}}}");
        let expected = Units { input, output, ..Units::default() };
        for (kind, body) in [
            ("application/json", format!("{{{usage}}}")),
            ("text/event-stream", format!("data: {{\"a\":1,\ndata: {usage}}}\n\n")),
            ("text/event-stream", format!("data:{{{usage}}}\r\n\r\ndata: [DONE]\r\n\r\n")),
            ("application/x-ndjson", format!("{{}}\n{{{usage}}}\n")),
        ] {
            let headers = &[("content-type", kind)];
            for route in [openai(), anthropic()] {
                let metered = meter(&route, Answer { headers, body: body.as_bytes(), trailers: &[] }, size);
                prop_assert_eq!((metered.fault, metered.usage.units), (None, expected), "{}", body);
            }
        }
    }
}
