use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path};
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use url::form_urlencoded;

use crate::digest;
use crate::json::{self, Json, Value};
use crate::matching::{self, Body, Expected, Pairs};
use crate::play::Interaction;
use crate::reply::{Answer, Fault, Reply};

/// The largest cassette that is read, in bytes. Large bodies lie beside it.
const MAX_FILE: u64 = 256 * 1024 * 1024;

/// Exchanges to be replayed: from a file ([`load`](Self::load)), from a text ([`parse`](Self::parse)), or
/// replies in code ([`script`]).
///
/// [`play`](Self::play) it in a test, and have the guard check that all of it was played. A program that replays
/// takes [`transport`](Self::transport). The format is explained in [`format`](crate::format).
#[derive(Clone)]
pub struct Cassette {
    pub(crate) name: Arc<str>,
    pub(crate) interactions: Arc<[Interaction]>,
    pub(crate) tokens: bool,
}

/// Replies in code: each answers the next request, whatever it is.
///
/// A script knows nothing of requests, not even which are for tokens; [`Cassette::with_tokens`] answers those
/// without it.
///
/// ```
/// use malquery_mock::{Fault, VirtualClock, reply, script};
/// use malquery_proto::flow::Auth;
/// use malquery_proto::{Client, Cloud, Credentials};
///
/// let (mock, guard) = script([
///     reply::status(503),
///     reply::fault(Fault::Timeout),
///     reply::json(200, serde_json::json!({"meta": {"hunt_limit": 100, "hunt_count": 3}})),
/// ])
/// .with_tokens()
/// .play();
/// let clock = VirtualClock::new();
/// let auth = Auth::new(Cloud::Us1, Credentials::new("an-id", "a-secret"));
/// let client = Client::new(mock, clock.clone(), auth);
///
/// assert_eq!(client.quotas()?.meta.hunt_limit, Some(100));
/// assert_eq!(clock.waits().len(), 2);
/// guard.finish();
/// # Ok::<(), malquery_proto::client::Error>(())
/// ```
pub fn script(replies: impl IntoIterator<Item = Reply>) -> Cassette {
    let interaction = |(index, reply): (usize, Reply)| Interaction {
        id: "".into(),
        label: format!("reply {} of the script", index + 1),
        expected: None,
        answer: reply.answer,
        times: reply.times,
        repeat_last: reply.repeat_last,
        any_number: false,
    };
    Cassette {
        name: "the script".into(),
        interactions: replies.into_iter().enumerate().map(interaction).collect(),
        tokens: false,
    }
}

impl Cassette {
    /// Reads a cassette from a file. Bodies it keeps in files of their own are read, too.
    ///
    /// # Errors
    /// Refuses everything that is not in the [`format`](crate::format), and names the place.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, CassetteError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let whole = |message: &str, source| CassetteError::whole(&name, message, source);
        let mut bytes = Vec::new();
        let read_all = |file: File| file.take(MAX_FILE + 1).read_to_end(&mut bytes);
        File::open(path)
            .and_then(read_all)
            .map_err(|error| whole("the file could not be read", Some(error)))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(whole("the file is larger than 256 MiB", None));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let mut refused = whole("the file is not UTF-8", None);
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            refused.0.place = Some(json::line_column(
                &String::from_utf8_lossy(valid),
                valid.len(),
            ));
            refused
        })?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        read(&Source {
            name: &name,
            text: &text,
            folder: Some(folder),
        })
    }

    /// Reads a cassette from a text, say of `include_str!`. The name is for messages. There is no folder, so
    /// bodies in files of their own are refused.
    ///
    /// # Errors
    /// As [`Cassette::load`].
    pub fn parse(name: &str, text: &str) -> Result<Self, CassetteError> {
        read(&Source {
            name,
            text,
            folder: None,
        })
    }

    /// Answers requests for a token with one that lives for 30 minutes, any number of times, beside what is
    /// played. For scripts, and for cassettes without a recorded token.
    pub fn with_tokens(mut self) -> Self {
        self.tokens = true;
        self
    }

    /// Lets the recorded tokens be asked for as often as it takes: that depends on how fast the program and its clock are,
    /// not on what the program does.
    pub(crate) fn with_any_number_of_tokens(mut self) -> Self {
        let mut interactions = self.interactions.to_vec();
        for interaction in interactions
            .iter_mut()
            .filter(|interaction| interaction.is_for_tokens())
        {
            interaction.any_number = matches!(&interaction.answer, Answer::Response { status, .. } if status.is_success());
        }
        self.interactions = interactions.into();
        self
    }
}

impl fmt::Debug for Cassette {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Cassette({}, {} interactions)",
            self.name,
            self.interactions.len()
        )
    }
}

/// A cassette that is refused, with the place of what is wrong.
#[derive(Debug)]
pub struct CassetteError(Box<Detail>);

#[derive(Debug)]
struct Detail {
    name: String,
    place: Option<(usize, usize)>,
    pointer: String,
    id: Option<String>,
    message: String,
    source: Option<io::Error>,
}

impl CassetteError {
    fn whole(name: &str, message: &str, source: Option<io::Error>) -> Self {
        Self(Box::new(Detail {
            name: name.into(),
            place: None,
            pointer: String::new(),
            id: None,
            message: message.into(),
            source,
        }))
    }

    /// The line and column, from 1, unless the file as a whole is refused.
    pub fn place(&self) -> Option<(usize, usize)> {
        self.0.place
    }
}

impl fmt::Display for CassetteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Detail {
            name,
            place,
            pointer,
            id,
            message,
            ..
        } = &*self.0;
        f.write_str(name)?;
        if let Some((line, column)) = place {
            write!(f, ":{line}:{column}")?;
        }
        if !pointer.is_empty() {
            write!(f, ": {pointer}")?;
        }
        if let Some(id) = id {
            write!(f, " ({id})")?;
        }
        write!(f, ": {message}")
    }
}

impl std::error::Error for CassetteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|error| error as _)
    }
}

type Result<T, E = CassetteError> = std::result::Result<T, E>;

struct Source<'a> {
    name: &'a str,
    text: &'a str,
    folder: Option<&'a Path>,
}

/// A value and where it is.
#[derive(Clone)]
struct At<'a> {
    source: &'a Source<'a>,
    id: Option<&'a str>,
    pointer: String,
    json: &'a Json,
}

impl<'a> At<'a> {
    fn error(&self, message: impl Into<String>) -> CassetteError {
        CassetteError(Box::new(Detail {
            name: self.source.name.into(),
            place: Some(json::line_column(self.source.text, self.json.at)),
            pointer: self.pointer.clone(),
            id: self.id.map(Into::into),
            message: message.into(),
            source: None,
        }))
    }

    fn expected(&self, what: &str) -> CassetteError {
        self.error(format!(
            "this should be {what}, and is {}",
            self.json.kind()
        ))
    }

    fn inner(&self, key: &str, json: &'a Json) -> Self {
        let mut pointer = self.pointer.clone();
        let pointer = json::nested(&mut pointer, key, |pointer| pointer.clone());
        Self {
            pointer,
            json,
            ..*self
        }
    }

    fn members(&self) -> Result<&'a [(String, Json)]> {
        match &self.json.value {
            Value::Object(members) => Ok(members),
            _ => Err(self.expected("an object")),
        }
    }

    /// Refuses any other key.
    fn only(&self, keys: &[&str]) -> Result<()> {
        match self
            .members()?
            .iter()
            .find(|(key, _)| !keys.contains(&key.as_str()))
        {
            Some((key, value)) => {
                let message = format!(
                    "the key {} is not known; there are {}",
                    json::quote(key),
                    keys.join(", ")
                );
                Err(self.inner(key, value).error(message))
            }
            None => Ok(()),
        }
    }

    fn get(&self, key: &str) -> Result<Option<Self>> {
        let found = self.members()?.iter().find(|(name, _)| name == key);
        Ok(found.map(|(name, value)| self.inner(name, value)))
    }

    fn need(&self, key: &str) -> Result<Self> {
        self.get(key)?
            .ok_or_else(|| self.error(format!("the key {} is missing", json::quote(key))))
    }

    /// The one key of these that is there.
    fn one_of(&self, keys: &[&str]) -> Result<Self> {
        let mut found = None;
        for key in keys {
            match (self.get(key)?, &found) {
                (Some(value), None) => found = Some(value),
                (Some(value), Some(_)) => {
                    return Err(
                        value.error(format!("only one of {} may be given", keys.join(", ")))
                    );
                }
                (None, _) => {}
            }
        }
        found.ok_or_else(|| self.error(format!("one of {} is missing", keys.join(", "))))
    }

    fn string(&self) -> Result<&'a str> {
        match &self.json.value {
            Value::String(text) => Ok(text),
            _ => Err(self.expected("a string")),
        }
    }

    fn items(&self) -> Result<Vec<Self>> {
        match &self.json.value {
            Value::Array(items) => Ok(items
                .iter()
                .enumerate()
                .map(|(index, item)| self.inner(&index.to_string(), item))
                .collect()),
            _ => Err(self.expected("an array")),
        }
    }

    fn number<T: FromStr>(&self) -> Result<T> {
        match &self.json.value {
            Value::Number(digits) => digits
                .parse()
                .map_err(|_| self.error(format!("{digits} is not a whole number that fits here"))),
            _ => Err(self.expected("a number")),
        }
    }

    fn boolean(&self) -> Result<bool> {
        match self.json.value {
            Value::Bool(value) => Ok(value),
            _ => Err(self.expected("true or false")),
        }
    }

    /// An array of pairs of strings.
    fn pairs(&self) -> Result<Vec<(Self, &'a str, &'a str)>> {
        self.items()?
            .into_iter()
            .map(|pair| match pair.items()?.as_slice() {
                [name, value] => Ok((pair.clone(), name.string()?, value.string()?)),
                _ => Err(pair.error("this should be a pair: [\"name\", \"value\"]")),
            })
            .collect()
    }
}

fn read(source: &Source<'_>) -> Result<Cassette> {
    let place = |at| Some(json::line_column(source.text, at));
    let mut at = 0;
    for line in source.text.split_inclusive('\n') {
        if ["<<<<<<<", "|||||||", "=======", ">>>>>>>"]
            .iter()
            .any(|marker| line.starts_with(marker))
        {
            let mut error = CassetteError::whole(
                source.name,
                "a merge conflict is not resolved: here is its marker",
                None,
            );
            error.0.place = place(at);
            return Err(error);
        }
        at += line.len();
    }
    let root = Json::parse(source.text).map_err(|error| {
        let mut refused = CassetteError::whole(source.name, &error.message, None);
        refused.0.place = place(error.at);
        refused.0.id = id_of(source.text, &error.pointer);
        refused.0.pointer = error.pointer;
        refused
    })?;
    let root = At {
        source,
        id: None,
        pointer: String::new(),
        json: &root,
    };

    // First what decides whether the rest can be understood.
    let version = root.need("version")?;
    if !matches!(&version.json.value, Value::Number(digits) if **digits == *"1") {
        return Err(version.error(format!(
            "the version {} is not known; this one reads 1",
            version.json
        )));
    }
    if let Some(feature) = root
        .get("features")?
        .map(|features| features.items())
        .transpose()?
        .unwrap_or_default()
        .first()
    {
        return Err(feature.error(format!("the feature {} is not known", feature.json)));
    }
    root.only(&[
        "version",
        "features",
        "recorded_with",
        "redaction",
        "interactions",
    ])?;
    for key in ["recorded_with", "redaction"] {
        root.get(key)?.map(|value| value.string()).transpose()?;
    }
    let (mut counted, mut line) = (0, 1);
    // From each to the next, since there may be thousands.
    let numbered = |at: At<'_>| {
        line += source.text[counted..at.json.at].matches('\n').count();
        counted = at.json.at;
        interaction(at, line)
    };
    let interactions = root
        .need("interactions")?
        .items()?
        .into_iter()
        .map(numbered)
        .collect::<Result<Arc<[_]>>>()?;
    Ok(Cassette {
        name: source.name.into(),
        interactions,
        tokens: false,
    })
}

/// The id of the interaction a pointer leads into, of a text that is refused for a duplicate key or the like.
fn id_of(text: &str, pointer: &str) -> Option<String> {
    let index = pointer.strip_prefix("/interactions/")?.split('/').next()?;
    let lenient: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(
        lenient
            .pointer(&format!("/interactions/{index}/id"))?
            .as_str()?
            .to_owned(),
    )
}

fn interaction(mut at: At<'_>, line: usize) -> Result<Interaction> {
    let id = at.need("id")?;
    at.id = Some(id.string()?);
    if id.string()?.is_empty() {
        return Err(id.error("it is empty"));
    }
    at.only(&["id", "request", "response", "error", "times", "repeat_last"])?;
    let times = match at.get("times")? {
        None => 1,
        Some(times) => match times.number()? {
            0 => return Err(times.error("an interaction that is never played has no use")),
            count => count,
        },
    };
    let answer = at.one_of(&["response", "error"])?;
    let answer = if at.get("error")?.is_some() {
        fault(&answer)?
    } else {
        response(&answer)?
    };
    Ok(Interaction {
        id: id.string()?.into(),
        label: format!("{} (line {line})", json::quote(id.string()?)),
        expected: Some(request(&at.need("request")?)?),
        answer,
        times,
        repeat_last: at
            .get("repeat_last")?
            .map(|value| value.boolean())
            .transpose()?
            .unwrap_or(false),
        any_number: false,
    })
}

/// Why a request can be in no cassette.
pub(crate) fn unfit(method: &Method, uri: &Uri) -> Option<&'static str> {
    if !is_method(method) {
        return Some(
            "the method of a request in a cassette has no small letters, so it was not sent",
        );
    }
    (!has_path(uri))
        .then_some("a request in a cassette has a path that begins with /, so it was not sent")
}

/// Methods are told apart by case, and small letters are slips of the pen.
fn is_method(method: &Method) -> bool {
    !method
        .as_str()
        .bytes()
        .any(|byte| byte.is_ascii_lowercase())
}

fn has_path(uri: &Uri) -> bool {
    uri.path().starts_with('/')
}

fn request(at: &At<'_>) -> Result<Expected> {
    at.only(&["method", "uri", "headers", "body"])?;
    let method = at.need("method")?;
    let known = Method::from_bytes(method.string()?.as_bytes())
        .ok()
        .filter(is_method)
        .ok_or_else(|| method.error("this is not a method such as GET or POST"))?;
    let uri = at.need("uri")?;
    let refuse = |why: &str| {
        uri.error(format!(
            "this is not a URI such as https://host/path?query: {why}"
        ))
    };
    if uri.string()?.contains('#') {
        return Err(refuse("a request has no fragment"));
    }
    let parsed: Uri = uri
        .string()?
        .parse()
        .map_err(|error: http::uri::InvalidUri| refuse(&error.to_string()))?;
    if !has_path(&parsed) {
        return Err(refuse("it has no path"));
    }
    let scheme = match at.get("headers")? {
        None => None,
        Some(at) => Some(
            headers(&at)?
                .get(header::AUTHORIZATION)
                .map(|value| matching::scheme(value.as_bytes())),
        ),
    };
    let query = parsed.query().unwrap_or_default();
    Ok(Expected {
        method: known,
        origin: parsed
            .scheme_str()
            .zip(parsed.authority())
            .map(|(scheme, authority)| format!("{scheme}://{authority}")),
        path: parsed.path().to_owned(),
        query: form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect(),
        scheme,
        body: body(at)?,
    })
}

fn response(at: &At<'_>) -> Result<Answer> {
    at.only(&["status", "headers", "body", "fault"])?;
    let status = at.need("status")?;
    let code = StatusCode::from_u16(status.number()?)
        .ok()
        .filter(|code| !code.is_informational())
        .ok_or_else(|| status.error(format!("{} is not the status of a reply", status.json)))?;
    let headers = at
        .get("headers")?
        .map(|at| headers(&at))
        .transpose()?
        .unwrap_or_default();
    let body = body(at)?;
    if matches!(body, Body::Json(_)) && headers.contains_key(header::CONTENT_LENGTH) {
        return Err(at.error(
            "a body that is JSON is sent in its shortest form, so its length is not that of the recorded one; \
             leave out content-length",
        ));
    }
    let body = body.into_bytes();
    let truncate_after = match at.get("fault")? {
        None => None,
        Some(fault) => {
            fault.only(&["truncate_after"])?;
            let after = fault.need("truncate_after")?;
            match after.number()? {
                count if count > body.len() => {
                    return Err(after.error(format!("the body has only {} bytes", body.len())));
                }
                count => Some(count),
            }
        }
    };
    Ok(Answer::Response {
        status: code,
        headers,
        body,
        truncate_after,
    })
}

fn fault(at: &At<'_>) -> Result<Answer> {
    at.only(&["kind"])?;
    let kind = at.need("kind")?;
    let name = kind.string()?;
    match Fault::NAMES.iter().find(|(known, _)| *known == name) {
        Some((_, fault)) => Ok(Answer::Fault(*fault)),
        None => {
            let names: Vec<_> = Fault::NAMES.iter().map(|(name, _)| *name).collect();
            Err(kind.error(format!(
                "the kind {} is not known; there are {}",
                kind.json,
                names.join(", ")
            )))
        }
    }
}

fn headers(at: &At<'_>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (pair, name, value) in at.pairs()? {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| pair.error("the name is not valid"))?;
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| pair.error("the value is not valid"))?;
        headers
            .try_append(name, value)
            .map_err(|_| pair.error("there are too many headers"))?;
    }
    Ok(headers)
}

fn body(at: &At<'_>) -> Result<Body> {
    let Some(at) = at.get("body")? else {
        return Ok(Body::Empty);
    };
    at.only(&["json", "text", "form", "base64", "file", "len", "sha256"])?;
    let content = at.one_of(&["json", "text", "form", "base64", "file"])?;
    let (len, sha256) = (at.get("len")?, at.get("sha256")?);
    let bytes = match (at.get("base64")?, at.get("file")?) {
        (Some(_), _) => {
            at.need("len")?;
            at.need("sha256")?;
            base64(&content)?
        }
        (_, Some(_)) => file(&content)?,
        _ => {
            if let Some(key) = len.or(sha256) {
                return Err(key.error("len and sha256 go with base64 and file"));
            }
            return match &content.json.value {
                Value::String(text) if at.get("text")?.is_some() => {
                    Ok(Body::Bytes(text.as_bytes().into()))
                }
                _ if at.get("json")?.is_some() => Ok(Body::Json(content.json.clone())),
                _ if at.get("form")?.is_some() => Ok(Body::Form(
                    content
                        .pairs()?
                        .into_iter()
                        .map(|(_, name, value)| (name.into(), value.into()))
                        .collect(),
                )),
                _ => Err(content.expected("a string")),
            };
        }
    };
    if let Some(len) = len
        && len.number::<usize>()? != bytes.len()
    {
        return Err(len.error(format!("the body has {} bytes", bytes.len())));
    }
    if let Some(sha256) = sha256 {
        let real = digest::sha256(&bytes);
        if sha256.string()? != real {
            return Err(sha256.error(format!("the body has the SHA-256 {real}")));
        }
    }
    Ok(Body::Bytes(bytes.into()))
}

/// Lines of base64, which belong together.
fn base64(at: &At<'_>) -> Result<Vec<u8>> {
    let lines = at.items()?;
    let mut text = String::new();
    for line in &lines {
        let characters = line.string()?;
        if let Some(wrong) = characters
            .chars()
            .find(|c| !(c.is_ascii_alphanumeric() || "+/=".contains(*c)))
        {
            return Err(line.error(format!("{wrong:?} does not belong in base64")));
        }
        text.push_str(characters);
    }
    STANDARD
        .decode(&text)
        .map_err(|error| at.error(format!("this is no base64: {error}")))
}

/// A file in the folder of the cassette or below it.
fn file(at: &At<'_>) -> Result<Vec<u8>> {
    let Some(folder) = at.source.folder else {
        return Err(at.error("a cassette that is not a file has no files beside it"));
    };
    let name = Path::new(at.string()?);
    let refuse = |message: &str, source| {
        let mut error = at.error(message);
        error.0.source = source;
        error
    };
    let escapes = || refuse("it must lie in the folder of the cassette", None);
    if name.as_os_str().is_empty()
        || !name
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
    {
        return Err(escapes());
    }
    let unread = |error| refuse("the file could not be read", Some(error));
    // A link may lead elsewhere.
    let real = folder.join(name).canonicalize().map_err(unread)?;
    if !real.starts_with(folder.canonicalize().map_err(unread)?) {
        return Err(escapes());
    }
    if !real.is_file() {
        return Err(refuse("it is not a file", None));
    }
    std::fs::read(real).map_err(unread)
}

impl Body {
    /// The bytes to send.
    fn into_bytes(self) -> Arc<[u8]> {
        let form = |pairs: &Pairs| {
            form_urlencoded::Serializer::new(String::new())
                .extend_pairs(pairs)
                .finish()
        };
        match self {
            Self::Empty => Arc::default(),
            Self::Json(json) => json.to_string().into_bytes().into(),
            Self::Form(pairs) => form(&pairs).into_bytes().into(),
            Self::Bytes(bytes) => bytes,
        }
    }
}
