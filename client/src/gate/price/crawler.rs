//! Telling crawlers from people.
//!
//! A request is a crawler's when it says so: by a payment header of crawlers (`crawler-max-price`,
//! `crawler-exact-price`), by signing as one (`signature-agent`, Web Bot Auth), or by a word of its `User-Agent` that is on
//! the list. Nothing here is proof. A crawler that hides is treated as people are, so people's price is never the lower
//! bound of what a crawler pays; and anybody can say that he is a crawler, so `weir gate check` warns when crawlers pay
//! less than people.
//!
//! The list names programs that collect content for machines. Search engines that send readers (Googlebot, Bingbot) are
//! not on it; the configuration can add and remove names.

use http::HeaderMap;
use http::header::USER_AGENT;

/// Words of a `User-Agent` that name a crawler. Compared without case.
pub const CRAWLERS: &[&str] = &[
    "AI2Bot",
    "Amazonbot",
    "anthropic-ai",
    "Applebot-Extended",
    "Bytespider",
    "CCBot",
    "ChatGPT-User",
    "Claude-SearchBot",
    "Claude-User",
    "Claude-Web",
    "ClaudeBot",
    "cohere-ai",
    "cohere-training-data-crawler",
    "Diffbot",
    "DuckAssistBot",
    "FacebookBot",
    "Google-CloudVertexBot",
    "Google-Extended",
    "GoogleOther",
    "GPTBot",
    "ImagesiftBot",
    "Meta-ExternalAgent",
    "Meta-ExternalFetcher",
    "MistralAI-User",
    "OAI-SearchBot",
    "omgili",
    "PanguBot",
    "Perplexity-User",
    "PerplexityBot",
    "PetalBot",
    "Scrapy",
    "Timpibot",
    "VelenPublicWebCrawler",
    "Webzio-Extended",
    "YouBot",
];

/// Headers that only crawlers send.
pub const CRAWLER_HEADERS: &[&str] = &["crawler-max-price", "crawler-exact-price", "signature-agent"];

/// The longest part of a `User-Agent` that is looked at.
const MAX_USER_AGENT_BYTES: usize = 2_048;

/// Who counts as a crawler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crawlers {
    /// In lower case.
    names: Vec<String>,
}

impl Default for Crawlers {
    fn default() -> Self {
        Self::new(&[], &[])
    }
}

impl Crawlers {
    /// The list with these names more and those names less.
    #[must_use]
    pub fn new(more: &[String], less: &[String]) -> Self {
        let less: Vec<String> = less.iter().map(|name| name.to_lowercase()).collect();
        let known = CRAWLERS.iter().map(|name| name.to_lowercase());
        let all = known.chain(more.iter().map(|name| name.to_lowercase()));
        Self { names: all.filter(|name| !less.contains(name)).collect() }
    }

    /// Whether a request with these headers is a crawler's; what says so.
    #[must_use]
    pub fn find(&self, headers: &HeaderMap) -> Option<&str> {
        if let Some(header) = CRAWLER_HEADERS.iter().find(|header| headers.contains_key(**header)) {
            return Some(header);
        }
        headers.get_all(USER_AGENT).iter().find_map(|value| {
            let bytes = value.as_bytes();
            let text = String::from_utf8_lossy(bytes.get(..MAX_USER_AGENT_BYTES).unwrap_or(bytes)).to_lowercase();
            self.names.iter().find(|name| has_word(&text, name)).map(String::as_str)
        })
    }
}

/// Whether a text holds a name that is not a part of a longer word.
fn has_word(text: &str, name: &str) -> bool {
    let part_of_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.match_indices(name).any(|(at, _)| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let after = text.get(at + name.len()..).and_then(|after| after.chars().next());
        !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    fn agent(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, text.parse().unwrap());
        headers
    }

    #[test]
    fn crawler_is_known_by_a_word_of_its_user_agent() {
        let crawlers = Crawlers::default();
        for text in [
            "GPTBot",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
            "mozilla/5.0 (compatible; claudebot/1.0; +claudebot@anthropic.com)",
            "CCBot/2.0 (https://commoncrawl.org/faq/)",
        ] {
            assert!(crawlers.find(&agent(text)).is_some(), "{text}");
        }
        for text in
            ["", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "curl/8.5.0", "NotGPTBots"]
        {
            assert_eq!(crawlers.find(&agent(text)), None, "{text}");
        }
    }

    #[test]
    fn crawler_is_known_by_a_header_that_only_crawlers_send() {
        for name in CRAWLER_HEADERS {
            let mut headers = agent("Mozilla/5.0");
            headers.insert(*name, "EUR 0.01".parse().unwrap());
            assert_eq!(Crawlers::default().find(&headers), Some(*name));
        }
    }

    #[test]
    fn list_can_be_made_longer_and_shorter() {
        let crawlers = Crawlers::new(&["Googlebot".to_owned()], &["gptbot".to_owned()]);
        assert_eq!(crawlers.find(&agent("Googlebot/2.1")), Some("googlebot"));
        assert_eq!(crawlers.find(&agent("GPTBot/1.2")), None);
    }

    #[test]
    fn user_agent_is_looked_at_up_to_its_bound() {
        let text = |filler: usize| agent(&format!("{} GPTBot", "x".repeat(filler)));
        let crawlers = Crawlers::default();
        assert!(crawlers.find(&text(MAX_USER_AGENT_BYTES - 7)).is_some());
        assert!(crawlers.find(&text(MAX_USER_AGENT_BYTES - 6)).is_none());
    }
}
