//! Path patterns, and the routers that find the most specific one. Matching is `matchit`'s.
//!
//! `matchit` refuses a parameter beside the rest of a path at one place (`/{page}` and `/{*rest}`), which price tables
//! need. So it never sees the rest: patterns with one are kept by their depth and matched against so many segments of the
//! path; of what is found the most specific holds, compared segment by segment from the left.
//!
//! A pattern is a path with parameters: `{id}` takes one segment (or its end: `/v{version}`), `{*rest}` at the end takes
//! the rest of the path, nothing included: `/files/{*rest}` is `/files` and all below it.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use http::Method;

use super::path;
use super::route::{Conflict, Meaning, Route};

/// The longest pattern.
pub const MAX_PATTERN_BYTES: usize = 1_024;

/// A path pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// Up to the rest, with the parameters' names replaced by their numbers: two patterns of one shape match the same
    /// paths.
    shape: String,
    /// Whether the rest of a path follows.
    rest: bool,
    /// How specific it is.
    rank: Vec<Segment>,
}

/// What a segment of a pattern takes; the most specific first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal,
    LiteralAndParameter,
    Parameter,
    Rest,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Not from the root.
    #[error("the path does not start with `/`")]
    NotRooted,
    /// More than [`MAX_PATTERN_BYTES`].
    #[error("the path is longer than {MAX_PATTERN_BYTES} bytes")]
    TooLong,
    /// A parameter that cannot be read.
    #[error("a parameter of the path is not `{{name}}`, one in a segment and at its end, or `{{*rest}}` at the end")]
    Parameter,
    /// A path that no request has once it is normalised.
    #[error("no request has such a path: {0}")]
    Never(&'static str),
}

impl Pattern {
    /// Reads a pattern. A slash at its end means nothing, as in a request.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(PatternError::TooLong);
        }
        if !text.starts_with('/') {
            return Err(PatternError::NotRooted);
        }
        let text = if text == "/" { text } else { text.strip_suffix('/').unwrap_or(text) };
        if text.contains('?') || text.contains('#') {
            return Err(PatternError::Never("a path ends before `?`; patterns say nothing about queries"));
        }
        // What stands between the braces is no part of the path.
        let literal = shape(text, |_| "0".to_owned())?.replace(['{', '}', '*'], "");
        match path::target(&literal) {
            Ok(target) if target.path == literal => {}
            Ok(_) => return Err(PatternError::Never("write it unescaped, with single slashes")),
            Err(_) => return Err(PatternError::Never("such paths are refused before they are matched")),
        }
        let whole = shape(text, |number| number.to_string())?;
        let (shape, rest) = match whole.split_once("/{*") {
            // Nothing may follow the rest.
            Some((before, parameter)) if parameter.split_once('}').is_some_and(|(_, after)| after.is_empty()) => {
                (if before.is_empty() { "/" } else { before }, true)
            }
            Some(_) => return Err(PatternError::Parameter),
            None if whole.contains("{*") => return Err(PatternError::Parameter),
            None => (whole.as_str(), false),
        };
        matchit::Router::new().insert(shape, ()).map_err(|_| PatternError::Parameter)?;
        Ok(Self { text: text.to_owned(), shape: shape.to_owned(), rest, rank: rank(shape, rest) })
    }

    /// The pattern of every path.
    #[must_use]
    pub fn everything() -> Self {
        Self { text: "/{*rest}".to_owned(), shape: "/".to_owned(), rest: true, rank: vec![Segment::Rest] }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the first segment is written out: the route is about this path, not about whatever is there.
    #[must_use]
    pub fn names_first_segment(&self) -> bool {
        self.text.split('/').nth(1).is_some_and(|first| !first.contains('{') && !first.is_empty())
    }

    fn compared(&self, ignore_case: bool) -> String {
        if ignore_case { self.shape.to_lowercase() } else { self.shape.clone() }
    }
}

fn rank(shape: &str, rest: bool) -> Vec<Segment> {
    let segments = shape.split('/').filter(|segment| !segment.is_empty()).map(|segment| match segment.find('{') {
        None => Segment::Literal,
        Some(0) => Segment::Parameter,
        Some(_) => Segment::LiteralAndParameter,
    });
    segments.chain(rest.then_some(Segment::Rest)).collect()
}

/// How many segments a normalised path has.
fn depth(path: &str) -> usize {
    if path == "/" { 0 } else { path.matches('/').count() }
}

/// The first segments of a normalised path.
fn first(path: &str, depth: usize) -> &str {
    if depth == 0 {
        return "/";
    }
    path.match_indices('/').nth(depth).and_then(|(at, _)| path.get(..at)).unwrap_or(path)
}

/// A pattern with its parameters' names replaced: by `p` and what `name` makes of their numbers.
fn shape(text: &str, name: impl Fn(usize) -> String) -> Result<String, PatternError> {
    let mut shape = String::with_capacity(text.len());
    let (mut rest, mut number) = (text, 0);
    while let Some(open) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(open);
        let inner = from.strip_prefix('{').ok_or(PatternError::Parameter)?;
        let (parameter, after) = inner.split_once('}').ok_or(PatternError::Parameter)?;
        let (star, parameter) = match parameter.strip_prefix('*') {
            Some(parameter) => ("*", parameter),
            None => ("", parameter),
        };
        let readable = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
        if parameter.is_empty() || !parameter.chars().all(readable) {
            return Err(PatternError::Parameter);
        }
        shape.push_str(before);
        for part in ["{", star, "p", &name(number), "}"] {
            shape.push_str(part);
        }
        (rest, number) = (after, number + 1);
    }
    shape.push_str(rest);
    Ok(shape)
}

/// The patterns of a host and a method; what is found is the index of a route, and how specific its pattern is.
#[derive(Debug, Default)]
struct Router {
    whole: matchit::Router<(usize, Vec<Segment>)>,
    /// Patterns with a rest, by the number of segments before it.
    rest: BTreeMap<usize, matchit::Router<(usize, Vec<Segment>)>>,
}

impl Router {
    fn insert(&mut self, pattern: &Pattern, shape: String, index: usize) -> Result<(), matchit::InsertError> {
        let router = if pattern.rest { self.rest.entry(depth(&shape)).or_default() } else { &mut self.whole };
        router.insert(shape, (index, pattern.rank.clone()))
    }

    fn find(&self, path: &str) -> Option<usize> {
        let whole = self.whole.at(path).ok().map(|found| found.value);
        let rest = self.rest.range(..=depth(path));
        let rest = rest.filter_map(|(depth, router)| router.at(first(path, *depth)).ok().map(|found| found.value));
        whole.into_iter().chain(rest).min_by(|(_, one), (_, other)| one.cmp(other)).map(|(index, _)| *index)
    }
}

/// All routes' patterns, by host and method.
#[derive(Debug)]
pub(super) struct Patterns {
    hosts: HashMap<String, Methods, RandomState>,
    any_host: Methods,
}

#[derive(Debug, Default)]
struct Methods {
    /// For each method that some route names: those routes, and those of any method.
    named: Vec<(Method, Router)>,
    /// For all other methods.
    others: Router,
}

impl Patterns {
    /// Routers for routes.
    pub(super) fn new(routes: &[Route], ignore_case: bool) -> Result<Self, Vec<Conflict>> {
        let mut conflicts = Vec::new();
        let any_host = Methods::new(routes, None, ignore_case, &mut conflicts);
        let mut hosts: HashMap<String, Methods, RandomState> = HashMap::default();
        for host in routes.iter().filter_map(|route| route.host.as_ref()) {
            if !hosts.contains_key(host) {
                hosts.insert(host.clone(), Methods::new(routes, Some(host), ignore_case, &mut conflicts));
            }
        }
        // Routes that share several methods conflict once.
        conflicts.sort_by_key(|conflict| (conflict.second, conflict.first));
        conflicts.dedup_by_key(|conflict| (conflict.second, conflict.first));
        if conflicts.is_empty() { Ok(Self { hosts, any_host }) } else { Err(conflicts) }
    }

    /// The index of the most specific route.
    pub(super) fn find(&self, host: &str, method: &Method, path: &str) -> Option<usize> {
        let own = self.hosts.get(host).and_then(|methods| methods.find(method, path));
        own.or_else(|| self.any_host.find(method, path))
    }
}

impl Methods {
    fn new(routes: &[Route], host: Option<&String>, ignore_case: bool, conflicts: &mut Vec<Conflict>) -> Self {
        let here: Vec<(usize, &Route)> =
            routes.iter().enumerate().filter(|(_, route)| route.host.as_ref() == host).collect();
        let mut methods: Vec<Method> = here.iter().flat_map(|(_, route)| route.methods.clone()).collect();
        if methods.contains(&Method::GET) {
            methods.push(Method::HEAD);
        }
        methods.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        methods.dedup();
        let mut router = |method: Option<&Method>| {
            let mut entries = Vec::new();
            for (index, route) in &here {
                let rank = match method {
                    _ if route.methods.is_empty() => Rank::Any,
                    Some(method) if route.methods.contains(method) => Rank::Named,
                    Some(&Method::HEAD) if route.methods.contains(&Method::GET) => Rank::Get,
                    _ => continue,
                };
                entries.push((rank, *index, &route.pattern, route.pattern.compared(ignore_case)));
            }
            build(entries, conflicts)
        };
        let others = router(None);
        let named = methods
            .into_iter()
            .map(|method| {
                let router = router(Some(&method));
                (method, router)
            })
            .collect();
        Self { named, others }
    }

    fn find(&self, method: &Method, path: &str) -> Option<usize> {
        let named = self.named.iter().find(|(named, _)| named == method);
        let router = named.map_or(&self.others, |(_, router)| router);
        router.find(path)
    }
}

/// How well a route names a method. Of two patterns of one shape the better one holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Named,
    Get,
    Any,
}

fn build(mut entries: Vec<(Rank, usize, &Pattern, String)>, conflicts: &mut Vec<Conflict>) -> Router {
    entries.sort_by_key(|(rank, index, ..)| (*rank, *index));
    let mut router = Router::default();
    let mut taken: HashMap<(bool, String), (Rank, usize), RandomState> = HashMap::default();
    for (rank, index, pattern, shape) in entries {
        let mut conflict = |other: usize, meaning| {
            conflicts.push(Conflict { first: other.min(index), second: other.max(index), meaning });
        };
        let key = (pattern.rest, shape.clone());
        match taken.get(&key) {
            Some((other, first)) if *other == rank => conflict(*first, Meaning::Same),
            // A route that names the method better has it.
            Some(_) => {}
            None => match router.insert(pattern, shape, index) {
                Ok(()) => {
                    taken.insert(key, (rank, index));
                }
                Err(matchit::InsertError::Conflict { with }) => {
                    let other = taken.get(&(pattern.rest, with)).map_or(index, |(_, other)| *other);
                    conflict(other, Meaning::Overlap);
                }
                // Each pattern was inserted by itself when it was read.
                Err(_) => conflict(index, Meaning::Overlap),
            },
        }
    }
    router
}
