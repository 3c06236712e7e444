//! A server in a thread of this process, a client that speaks HTTP by hand, and the answers that `generate` gives.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine;
use burn::tensor::DType;
use data::{Content, ImageSource, Processor};
use launch::{ModelFolder, PictureOptions};
use model_qwen2vl::{QwenVl, QwenVlConfig};
use rollout::image_cache::ImageCache;
use rollout::sampler::Sampling;
use rollout::{FinishReason, Job, Response, RolloutConfig, generate};
use serde_json::{Value, json};
use serve::{ChatServer, ChatServerError, ChatServerHandle, ServedModel, ServerOptions};

pub(crate) type B = burn_flex::Flex<f32, i32>;

/// Longest that anything of these tests may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

/// A tiny random model with a tokenizer of bytes: its texts are full of halves of characters.
pub(crate) fn model_folder() -> PathBuf {
    fixture("models/tied_gqa")
}

pub(crate) fn options() -> ServerOptions {
    ServerOptions {
        port: 0,
        model_names: vec!["toy".into(), "alias".into()],
        max_new_tokens: 1024,
        ..Default::default()
    }
}

/// A server in this process, which ends with its test.
pub(crate) struct TestServer {
    pub handle: ChatServerHandle,
    thread: Option<JoinHandle<Result<(), ChatServerError>>>,
}

impl TestServer {
    pub(crate) fn start(options: ServerOptions) -> Self {
        let folder = ModelFolder::open(&model_folder()).unwrap();
        let processor = Arc::new(folder.processor(PictureOptions::default()).unwrap());
        let config = folder.config().unwrap().clone();
        let model = ServedModel {
            max_positions: config.text.max_position_embeddings,
            eos: folder.end_tokens(&processor).unwrap().into(),
            suppress: folder.never_sampled(&processor).unwrap().into(),
            prompt: Arc::new(move |ids, pixels, grids| config.prompt(ids, pixels, grids)),
            processor,
        };
        let server = ChatServer::bind(options, model).unwrap();
        let handle = server.handle();
        let thread = std::thread::spawn(move || {
            let policy: QwenVl<B> = folder.load(DType::F32, &Default::default()).unwrap();
            server.run(&policy, || {})
        });
        wait_until("the server is ready", || handle.is_ready());
        Self { handle, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.handle.address()
    }

    /// Ends it and waits for the end.
    pub(crate) fn end(&mut self) -> Result<(), ChatServerError> {
        self.handle.end();
        self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap())
    }

    /// A number of `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = get(self.address(), "/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or("0").parse().unwrap()
    }

    /// Nothing is computed, waited for or kept any more.
    pub(crate) fn is_empty(&self) -> bool {
        ["serve_requests_waiting", "serve_requests_running", "serve_rows", "serve_cached_rows"]
            .iter()
            .all(|name| self.metric(name) == 0.0)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.handle.end();
    }
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An answer: its status, its head in small letters, its body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        serde_json::from_slice(&self.body).unwrap()
    }

    /// An error in OpenAI's shape with this status; its message.
    #[track_caller]
    pub(crate) fn error(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        let error = serde_json::from_slice::<Value>(&self.body).unwrap()["error"].clone();
        assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
        assert!(error.get("param").is_some() && error.get("code").is_some(), "{error}");
        error
    }

    /// The events of a stream, the last of which must be `[DONE]`.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text());
        assert!(self.head.contains("content-type: text/event-stream"), "{}", self.head);
        let text = self.text();
        let mut events: Vec<&str> = text.split("\n\n").filter(|event| !event.is_empty()).collect();
        assert_eq!(events.pop(), Some("data: [DONE]"), "{text}");
        events.iter().map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap()).collect()
    }
}

/// Sends a request as it stands; its connection.
pub(crate) fn send(address: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    stream
}

pub(crate) const JSON: &str = "Content-Type: application/json\r\n";

/// Reads an answer to its end.
pub(crate) fn receive(stream: TcpStream) -> Answer {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "no answer: {head:?}");
    }
    let head = head.to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).unwrap();
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut part = vec![0; size + 2];
            reader.read_exact(&mut part).unwrap();
            body.extend_from_slice(&part[..size]);
            if size == 0 {
                break;
            }
        }
    } else {
        reader.read_to_end(&mut body).unwrap();
    }
    Answer { status, head, body }
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    receive(send(address, "GET", path, "", b""))
}

pub(crate) fn post(address: SocketAddr, path: &str, body: &Value) -> Answer {
    receive(send(address, "POST", path, JSON, body.to_string().as_bytes()))
}

pub(crate) fn chat(address: SocketAddr, body: &Value) -> Answer {
    post(address, "/v1/chat/completions", body)
}

/// One question with its settings, for the server and for `generate`.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub text: String,
    pub picture: Option<PathBuf>,
    pub n: usize,
    pub sampling: Sampling,
    pub max_tokens: usize,
    pub focus: bool,
}

impl Ask {
    pub(crate) fn new(text: &str, seed: u64) -> Self {
        let sampling = Sampling { temperature: 1.0, top_p: 1.0, seed };
        Self { text: text.into(), picture: None, n: 1, sampling, max_tokens: 40, focus: false }
    }

    /// The request; `more` fields are added.
    pub(crate) fn body(&self, more: &Value) -> Value {
        let mut content = vec![json!({ "type": "text", "text": self.text })];
        if let Some(picture) = &self.picture {
            content.insert(0, json!({ "type": "image_url", "image_url": { "url": data_url(picture) } }));
        }
        let mut body = json!({
            "model": "toy",
            "messages": [{ "role": "user", "content": content }],
            "n": self.n,
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
            "seed": self.sampling.seed,
            "max_tokens": self.max_tokens,
        });
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    }
}

pub(crate) fn data_url(picture: &Path) -> String {
    let bytes = std::fs::read(picture).unwrap();
    format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// The model of the server by itself: what `generate` answers.
pub(crate) struct Alone {
    pub processor: Processor,
    config: QwenVlConfig,
    eos: Vec<u32>,
    suppress: Vec<u32>,
    policy: QwenVl<B>,
}

impl Alone {
    pub(crate) fn new() -> Self {
        let folder = ModelFolder::open(&model_folder()).unwrap();
        let processor = folder.processor(PictureOptions::default()).unwrap();
        Self {
            config: folder.config().unwrap().clone(),
            eos: folder.end_tokens(&processor).unwrap(),
            suppress: folder.never_sampled(&processor).unwrap(),
            policy: folder.load(DType::F32, &Default::default()).unwrap(),
            processor,
        }
    }

    pub(crate) fn responses(&self, ask: &Ask) -> Vec<Response> {
        let mut content = vec![Content::Text(ask.text.clone())];
        let images: Vec<ImageSource> = ask.picture.iter().cloned().map(ImageSource::Path).collect();
        if !images.is_empty() {
            content.insert(0, Content::Image(0));
        }
        let encoded = self.processor.encode(None, &content, &images).unwrap();
        let grids = encoded.images.iter().map(|image| image.grid_thw).collect();
        let pixels = encoded.images.into_iter().flat_map(|image| image.values).collect();
        self.continued(encoded.input_ids, pixels, grids, ask)
    }

    pub(crate) fn continued(
        &self,
        ids: Vec<u32>,
        pixels: Vec<f32>,
        grids: Vec<[usize; 3]>,
        ask: &Ask,
    ) -> Vec<Response> {
        let prompt = self.config.prompt(ids, pixels, grids).unwrap();
        let config = RolloutConfig {
            n: ask.n,
            sampling: ask.sampling.clone(),
            max_new_tokens: ask.max_tokens,
            min_new_tokens: 0,
            eos: self.eos.clone(),
            suppress: self.suppress.clone(),
            focus: ask.focus.then_some(vgpo::PrototypeMode::Mean),
            max_batch_rows: ask.n,
            prefill_token_budget: usize::MAX,
        };
        let (never, mut images) = (AtomicBool::new(false), ImageCache::default());
        let job = Job { prompt: &prompt, key: 0 };
        generate(&self.policy, &[job], &config, &mut images, &never, |_, _, _| {}).unwrap().0.remove(0)
    }

    /// The text of a response, as `generate` writes it.
    pub(crate) fn text(&self, response: &Response) -> String {
        let mut stream = self.processor.stream();
        let mut text: String = response.ids.iter().map(|id| stream.push(*id).unwrap()).collect();
        text += &stream.finish().unwrap();
        text
    }
}

pub(crate) fn finish(response: &Response) -> &'static str {
    match response.finish {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}
