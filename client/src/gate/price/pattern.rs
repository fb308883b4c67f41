//! Path patterns, and the routers that find the most specific one. Matching is `matchit`'s.
//!
//! A pattern is a path with parameters: `{id}` takes one segment (or its end: `/v{version}`), `{*rest}` at the end takes
//! the rest of the path, nothing included: `/files/{*rest}` is `/files` and all below it.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use http::Method;

use super::path;
use super::route::{Conflict, Meaning, Route};

/// The longest pattern.
pub(crate) const MAX_PATTERN_BYTES: usize = 1_024;

/// A path pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// With the parameters' names replaced by their numbers: two patterns of one shape match the same paths.
    shape: String,
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
        let shape = shape(text, |number| number.to_string())?;
        let mut router = matchit::Router::new();
        router.insert(shape.clone(), ()).map_err(|_| PatternError::Parameter)?;
        Ok(Self { text: text.to_owned(), shape })
    }

    /// The pattern of every path.
    #[must_use]
    pub fn everything() -> Self {
        Self { text: "/{*rest}".to_owned(), shape: "/{*p0}".to_owned() }
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
        shape.push_str(&format!("{{{star}p{}}}", name(number)));
        (rest, number) = (after, number + 1);
    }
    shape.push_str(rest);
    Ok(shape)
}

/// A router for a host and a method; what is found is the index of a route.
type Router = matchit::Router<usize>;

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
                entries.push((rank, *index, route.pattern.compared(ignore_case)));
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
        router.at(path).ok().map(|found| *found.value)
    }
}

/// How well a route names a method. Of two patterns of one shape the better one holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Named,
    Get,
    Any,
}

fn build(mut entries: Vec<(Rank, usize, String)>, conflicts: &mut Vec<Conflict>) -> Router {
    entries.sort();
    let mut router = Router::new();
    let mut taken: HashMap<String, (Rank, usize), RandomState> = HashMap::default();
    for (rank, index, shape) in &entries {
        match taken.get(shape) {
            Some((other, first)) if other == rank => {
                conflicts.push(Conflict {
                    first: *first.min(index),
                    second: *first.max(index),
                    meaning: Meaning::Same,
                });
                continue;
            }
            Some(_) => continue,
            None => {}
        }
        taken.insert(shape.clone(), (*rank, *index));
        if let Err(matchit::InsertError::Conflict { with }) = router.insert(shape.clone(), *index) {
            let other = taken.get(&with).map_or(*index, |(_, other)| *other);
            conflicts.push(Conflict { first: other.min(*index), second: other.max(*index), meaning: Meaning::Overlap });
        }
    }
    // The rest of a path can be nothing: `/files/{*rest}` is `/files` too, unless another route is.
    for (rank, index, shape) in &entries {
        let Some((before, _)) = shape.split_once("/{*") else { continue };
        let bare = if before.is_empty() { "/" } else { before };
        if !taken.contains_key(bare) && router.insert(bare.to_owned(), *index).is_ok() {
            taken.insert(bare.to_owned(), (*rank, *index));
        }
    }
    router
}
