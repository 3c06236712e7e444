//! `view`: runs in the browser, or as one HTML file.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cli::Exit;
use view::ViewedRun;

use crate::Server;

/// Look at runs: curves, rollouts with their pictures, validation answers, configurations.
///
/// Serves a page to the browser on this machine, live while a run goes on; several runs are drawn over each other.
/// Ctrl-C ends it. Nothing is written into a run, and nothing is fetched from a network.
#[derive(Parser)]
#[command(
    name = "view",
    version,
    after_help = "Examples:
  view runs/toy
  view runs/dapo runs/vgpo --html both.html
A run on another machine: start it there after ssh -L 6160:127.0.0.1:6160 HOST, and open http://127.0.0.1:6160/ here.

Exit codes: 0 done; 1 the work failed; 2 bad usage, a folder that is no run, or a port in use. docs/view.md has more."
)]
struct ViewArgs {
    /// Folders of runs (trainer.output_dir).
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Port to serve at; 0 takes any that is free.
    #[arg(long, value_name = "N", default_value_t = cli::ports::VIEW)]
    port: u16,
    /// Address to serve at. With any other than the default everyone who reaches this machine can read the runs.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    host: IpAddr,
    /// A name by which browsers may name this machine; addresses and localhost are always allowed. May be repeated.
    #[arg(long, value_name = "NAME")]
    allow_name: Vec<String>,
    /// Write the page with its data as one file instead, which opens without a server. Pictures are in it; it has at
    /// most some 40 MB and says what was left out.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["port", "host", "allow_name"])]
    html: Option<PathBuf>,
}

/// The program, as `visual-rl` knows it.
pub const PROGRAM: cli::Program = cli::Program {
    name: "view",
    about: "Look at runs in a browser, or write them as one HTML file",
    main,
    command: <ViewArgs as clap::CommandFactory>::command,
};

/// The program.
pub fn main() -> ExitCode {
    cli::program(|args: ViewArgs| match &args.html {
        Some(file) => write(&args.runs, file),
        None => serve(args),
    })
}

fn write(runs: &[PathBuf], file: &std::path::Path) -> Result<ExitCode, Exit> {
    let written = view::write_report(runs, file).map_err(Exit::input)?;
    println!("{}: {:.1} MB", guard::echo(&file.to_string_lossy()), written.bytes as f64 / 1e6);
    written.left_out.iter().for_each(|what| println!("left out: {}", guard::printable(what)));
    Ok(ExitCode::SUCCESS)
}

fn serve(args: ViewArgs) -> Result<ExitCode, Exit> {
    let runs = ViewedRun::open(&args.runs).map_err(Exit::input)?;
    let server = Server::bind(runs, args.host, args.port, args.allow_name).map_err(Exit::input)?;
    println!("http://{}/ (Ctrl-C ends it)", server.address());
    if !args.host.is_loopback() {
        eprintln!("everyone who reaches {} can read these runs", server.address());
    }
    server.serve().map_err(Exit::other)?;
    Ok(ExitCode::SUCCESS)
}
