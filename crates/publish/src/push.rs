//! `push`: a checkpoint to the Hugging Face hub, with a model card.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use cli::Exit;
use hub::Hub;
use hub::name::RepoName;
use hub::upload::Commit;

use crate::card::Card;

/// Upload a checkpoint's model (its hf/: weights, or the adapter) to the Hugging Face hub, with a model card that says
/// what it was trained from, on what, how, and with which results.
///
/// HF_TOKEN, or `hf auth login`, says who uploads; HF_ENDPOINT names another hub.
#[derive(Parser)]
#[command(
    name = "push",
    version,
    after_help = "Examples:
  push runs/mine me/mine                      the newest checkpoint of a run
  push runs/mine/checkpoints/global_step_900 me/mine --private
  push runs/mine me/mine --card-only          writes README.md into the checkpoint's hf/ and uploads nothing

Exit codes: 0 done, 1 failed, 2 bad usage or input."
)]
struct PushArgs {
    /// A run folder of `train` (its newest checkpoint), or a checkpoint.
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Where it goes: owner/name, or owner/name@branch.
    #[arg(value_name = "OWNER/NAME")]
    name: String,
    /// Write the model card into the checkpoint's hf/ and upload nothing. A README.md that is there is kept.
    #[arg(long)]
    card_only: bool,
    /// Write the card anew though there is a README.md.
    #[arg(long)]
    overwrite_card: bool,
    /// A repository that is made for it is seen by its owner alone.
    #[arg(long)]
    private: bool,
}

fn run(args: PushArgs) -> Result<ExitCode, Exit> {
    let name = RepoName::parse(&args.name)
        .ok_or_else(|| Exit::input(format!("{:?} is no name on the hub; write owner/name", args.name)))?;
    let checkpoint = match args.run.join(run::layout::STATE).is_file() {
        true => args.run.clone(),
        false => Card::newest_checkpoint(&args.run).map_err(Exit::input)?,
    };
    let card = Card::of_checkpoint(&checkpoint, &name.id).map_err(Exit::input)?;
    let path = card.folder().join("README.md");
    write_card(&path, &card, args.overwrite_card)?;
    if args.card_only {
        println!("{}", path.display());
        return Ok(ExitCode::SUCCESS);
    }
    let step = checkpoint.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let commit = Commit { summary: &format!("{step}, by visual-rl"), private: args.private };
    let address = Hub::from_env().and_then(|hub| hub.upload(card.folder(), &name, &commit));
    println!("{}", address.map_err(Exit::other)?);
    Ok(ExitCode::SUCCESS)
}

/// Writes the card, unless somebody has written one.
fn write_card(path: &Path, card: &Card, overwrite: bool) -> Result<(), Exit> {
    if path.exists() && !overwrite {
        eprintln!("{} is there and is kept; --overwrite-card writes it anew", path.display());
        return Ok(());
    }
    let fail = |error| Exit::other(format!("{}: {error}", path.display()));
    guard::file::replace(path, card.text().as_bytes()).map_err(fail)
}

/// The program, as `visual-rl` knows it.
pub const PROGRAM: cli::Program = cli::Program {
    name: "push",
    about: "Upload a checkpoint to the Hugging Face hub, with a model card",
    main,
    command: <PushArgs as clap::CommandFactory>::command,
};

/// The program.
pub fn main() -> ExitCode {
    cli::program(run)
}
