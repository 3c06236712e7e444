//! `serve`: a model behind OpenAI's HTTP interface.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use burn::tensor::DType;
use clap::Parser;
use cli::{ranges, within};
use data::{Alpha, ExifOrientation};
use launch::{ModelFolder, PictureOptions};
use model_qwen2vl::Kernels;
use programs::{Failure, OnBackend, choice, device_program, on_backend};
use rl::config::{Backend, Dtype};

use crate::{ChatServer, ChatServerError, ServedModel, ServerOptions};

/// Serve a model to clients of OpenAI's API: /v1/chat/completions (text and pictures, streams, n, logprobs),
/// /v1/completions, /v1/models, /health, /metrics.
///
/// The same seed and settings give what `generate` gives, whatever else is asked at the time. Ctrl-C ends it once what
/// is being answered is answered.
#[derive(Parser)]
#[command(
    name = "serve",
    version,
    after_help = "Examples:
  serve --model DIR
  serve --model runs/toy --port 8001 --max-pixels 500000
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{\"model\": \"DIR\", \"messages\": [{\"role\": \"user\", \"content\": \"What is 2 + 2?\"}]}'

Exit codes: 0 ended by a signal, 1 failed, 2 bad usage or input, or a port in use. docs/serving.md has more."
)]
struct ServeArgs {
    /// Model folder in the Hugging Face layout, an adapter's, the run folder of `train` (its newest checkpoint), or a
    /// checkpoint. Weights and tokenizer are read once; what becomes of the folder then changes nothing.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Name of the model in requests; give it again for more names. Default: the last part of DIR, and DIR as it is
    /// written.
    #[arg(long, value_name = "NAME")]
    served_model_name: Vec<String>,
    /// Port to listen at; 0 takes any that is free.
    #[arg(long, value_name = "N", default_value_t = cli::ports::SERVE)]
    port: u16,
    /// Address to listen at. With any other than the default everyone who reaches this machine can ask: set a key.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    host: IpAddr,
    /// A name by which clients may name this machine; addresses and localhost are always allowed. May be repeated.
    #[arg(long, value_name = "NAME")]
    allow_name: Vec<String>,
    /// Environment variable that has the key which clients must send (Authorization: Bearer KEY).
    #[arg(long, value_name = "VARIABLE")]
    api_key: Option<String>,
    /// Folder whose pictures requests may name by path (file:///...). Without it pictures come as data URLs only;
    /// nothing is ever fetched from a network.
    #[arg(long, value_name = "DIR")]
    allowed_media: Option<PathBuf>,
    /// System message of conversations that have none. Default: the run's, or the chat template's own.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// Responses that are sampled at the same time.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = within::<usize>(1..=1 << 16))]
    max_batch_rows: usize,
    /// Requests that may wait for their first token; further ones get status 429.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = within::<usize>(1..=1 << 20))]
    max_queue: usize,
    /// Longest prompt in tokens, its pictures' included.
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = within::<usize>(1..=1 << 20))]
    max_prompt_tokens: usize,
    /// Longest response in tokens, and its length where a request names none.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = within::<usize>(1..=1 << 20))]
    max_new_tokens: usize,
    /// Largest body of a request, or file of a picture, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 32, value_parser = within::<usize>(1..=4096))]
    max_body: usize,
    /// Seconds from a request's arrival to its last token.
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = within::<u64>(1..=1 << 20))]
    timeout: u64,
    /// Seconds that a client may leave its answer unread, or the head or body of its request unfinished.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = within::<u64>(1..=1 << 20))]
    slow_reader: u64,
    /// Seconds that requests may go on after Ctrl-C or SIGTERM; a second signal does not wait.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = within::<u64>(0..=1 << 20))]
    grace: u64,
    /// Smaller pictures are enlarged to about this many pixels first; 0: none is. Default: as the model was trained, or
    /// none.
    #[arg(long, value_name = "N", value_parser = within::<u64>(ranges::PIXELS))]
    min_pixels: Option<u64>,
    /// Larger pictures are reduced to about this many pixels first; 0: none is. Default: as the model was trained, or
    /// none.
    #[arg(long, value_name = "N", value_parser = within::<u64>(ranges::PIXELS))]
    max_pixels: Option<u64>,
    /// What becomes of transparency. Default: as the model was trained, or white.
    #[arg(long, value_name = "WHAT", value_parser = choice::<Alpha>())]
    alpha: Option<Alpha>,
    /// What becomes of the turn that EXIF names. Default: as the model was trained, or apply.
    #[arg(long, value_name = "WHAT", value_parser = choice::<ExifOrientation>())]
    exif_orientation: Option<ExifOrientation>,
    /// Device library, among what was compiled in.
    #[arg(long, value_name = "B", default_value = "auto", value_parser = choice::<Backend>())]
    backend: Backend,
    /// Number format of weights and activations.
    #[arg(long, value_name = "D", default_value = "auto", value_parser = choice::<Dtype>())]
    dtype: Dtype,
}

impl ServeArgs {
    fn options(&self, folder: &ModelFolder) -> Result<ServerOptions, Failure> {
        if self.served_model_name.iter().any(|name| name.trim().is_empty()) {
            return Err(Failure::input("--served-model-name: a name is empty".to_owned()));
        }
        let key = |name: &String| match std::env::var(name) {
            Ok(key) if !key.is_empty() => Ok(key),
            _ => Err(Failure::input(format!("--api-key {name}: the environment variable is not set"))),
        };
        if let Some(media) = self.allowed_media.as_ref().filter(|media| !media.is_dir()) {
            return Err(Failure::input(format!("--allowed-media {}: is no folder", media.display())));
        }
        Ok(ServerOptions {
            host: self.host,
            port: self.port,
            allowed_names: self.allow_name.clone(),
            model_names: self.names(),
            api_key: self.api_key.as_ref().map(key).transpose()?,
            allowed_media: self.allowed_media.clone(),
            system: self.system.clone().or_else(|| folder.run().system_prompt.clone()),
            max_batch_rows: self.max_batch_rows,
            max_queue: self.max_queue,
            max_prompt_tokens: self.max_prompt_tokens,
            max_new_tokens: self.max_new_tokens,
            prefill_token_budget: self.max_prompt_tokens,
            max_body_bytes: self.max_body << 20,
            request_time: Duration::from_secs(self.timeout),
            slow_reader: Duration::from_secs(self.slow_reader),
            grace: Duration::from_secs(self.grace),
        })
    }

    fn names(&self) -> Vec<String> {
        if !self.served_model_name.is_empty() {
            return self.served_model_name.clone();
        }
        let whole = self.model.to_string_lossy().into_owned();
        let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let mut names = vec![last(&self.model).unwrap_or_else(|| whole.clone()), whole];
        names.dedup();
        names
    }

    fn pictures(&self) -> PictureOptions {
        PictureOptions {
            min_pixels: self.min_pixels,
            max_pixels: self.max_pixels,
            alpha: self.alpha,
            exif_orientation: self.exif_orientation,
        }
    }
}

/// A server that listens, and the folder whose weights it waits for.
struct Serve {
    server: ChatServer,
    folder: ModelFolder,
}

impl OnBackend for Serve {
    type Output = Result<(), Failure>;
    fn run<B: Kernels>(self, device: B::Device, dtype: DType) -> Self::Output {
        let Self { server, folder } = self;
        let model = folder.load::<B>(dtype, &device)?;
        let address = server.handle().address();
        let ready = || println!("ready: http://{address}/v1 (Ctrl-C ends it)");
        server.run(&model, ready).map_err(|error| match error {
            ChatServerError::Device(error) => rl::TrainError::from(error).into(),
            other => Failure::other(other),
        })
    }
}

fn run(args: ServeArgs) -> Result<(), Failure> {
    let folder = ModelFolder::open(&args.model)?;
    let processor = Arc::new(folder.processor(args.pictures())?);
    let config = folder.config()?.clone();
    let model = ServedModel {
        max_positions: config.text.max_position_embeddings,
        eos: folder.end_tokens(&processor)?.into(),
        suppress: folder.never_sampled(&processor)?.into(),
        prompt: Arc::new(move |ids, pixels, grids| config.prompt(ids, pixels, grids)),
        processor,
    };
    let options = args.options(&folder)?;
    let (exposed, names) = (!args.host.is_loopback() && options.api_key.is_none(), options.model_names.join(", "));
    let server = ChatServer::bind(options, model).map_err(Failure::input)?;
    let handle = server.handle();
    println!("http://{}/v1: loading {}", handle.address(), guard::printable(&names));
    if exposed {
        eprintln!("everyone who reaches {} can ask; --api-key VARIABLE sets a key", handle.address());
    }
    if let Some(format) = folder.run().format_prompt.as_deref().filter(|format| *format != "none") {
        eprintln!("the model was trained with the format prompt {format:?}, which clients have to write themselves");
    }
    ctrlc::set_handler(move || match (handle.is_ready(), handle.end()) {
        (true, true) => eprintln!("ending: what is being answered is finished first; once more ends at once"),
        (true, false) => std::process::exit(130),
        // Nobody was answered yet.
        (false, _) => std::process::exit(0),
    })
    .map_err(Failure::other)?;
    on_backend(args.backend, args.dtype, Serve { server, folder })?
}

/// The program, as `visual-rl` knows it.
pub const PROGRAM: cli::Program = cli::Program {
    name: "serve",
    about: "Serve a model to clients of OpenAI's API",
    main,
    command: <ServeArgs as clap::CommandFactory>::command,
};

/// The program.
pub fn main() -> ExitCode {
    device_program("--max-batch-rows, --max-prompt-tokens or --max-new-tokens", |args: ServeArgs| {
        run(args).map(|()| ExitCode::SUCCESS)
    })
}
