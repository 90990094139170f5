//! From which size on a mapped message is cheaper than one that is read.
//!
//! Sends messages over loopback in the ways that popcore knows, and by sendfile(2)
//! for comparison, from files in the page cache, opening and closing included, and
//! prints the CPU time of the sending process by message. Unmapping interrupts every
//! core that runs a thread of the process, so all of it is done by one thread alone
//! and by two at a time, each on a core of its own. A receiver is another process,
//! which checks that it got as many octets as it should have.
//!
//! `cargo bench --bench paths` says what to set `maildrop.map_text_from` and
//! `maildrop.map_wire_from` to.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, IoSlice, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use clap::{Parser, Subcommand};
use memmap2::{Advice, MmapOptions};
use popcore::limits;
use popcore::wire::Encoder;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

const SIZES: [usize; 10] = [
    8 << 10,
    32 << 10,
    64 << 10,
    128 << 10,
    256 << 10,
    512 << 10,
    1 << 20,
    2 << 20,
    4 << 20,
    10 << 20,
];

const FIRST_LINE: &[u8] = b"+OK 1048576 octets\r\n";
const END: &[u8] = b".\r\n";

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Rounds of each measurement, of which the median counts
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// MiB that each round of a measurement sends
    #[arg(long, default_value_t = 48)]
    mib: usize,
    /// One short round of each, to see that it works
    #[arg(long)]
    test: bool,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Receive what this address sends, and say how much it was
    Receive {
        /// The sender
        address: SocketAddr,
        /// On which CPU
        cpu: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Read,
    Map,
    Sendfile,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// To be encoded.
    Text,
    /// As it is sent.
    Wire,
}

impl Form {
    fn line_end(self) -> &'static str {
        match self {
            Form::Text => "\n",
            Form::Wire => "\r\n",
        }
    }

    fn ways(self) -> &'static [Way] {
        match self {
            Form::Text => &[Way::Read, Way::Map],
            Form::Wire => &[Way::Read, Way::Map, Way::Sendfile],
        }
    }
}

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let arguments = std::env::args().filter(|argument| argument != "--bench");
    let mut arguments = Arguments::parse_from(arguments);
    if arguments.test {
        arguments.rounds = 1;
        arguments.mib = 1;
    }
    let done = match arguments.part {
        Some(Part::Receive { address, cpu }) => receive(address, cpu),
        None => measure(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("paths: {message}");
            ExitCode::FAILURE
        }
    }
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|e| format!("CPU {cpu}: {e}; 0 and 1 are needed"))
}

fn receive(address: SocketAddr, cpu: usize) -> Result<()> {
    pin(cpu)?;
    let mut stream = TcpStream::connect(address).map_err(|e| e.to_string())?;
    let mut buffer = vec![0; 256 << 10];
    let mut octets = 0_u64;
    loop {
        match stream.read(&mut buffer).map_err(|e| e.to_string())? {
            0 => break,
            count => octets += count as u64,
        }
    }
    println!("{octets}");
    Ok(())
}

fn measure(arguments: &Arguments) -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    for senders in [1, 2] {
        for form in [Form::Text, Form::Wire] {
            println!("\n{form:?}, {senders} busy: CPU us a message");
            println!("{:>10}{:>12}{:>12}{:>12}", "KiB", "read", "map", "sendfile");
            let mut rows = Vec::new();
            for size in SIZES {
                let files = make(folder.path(), form, size)?;
                let ways = form.ways();
                let mut times = vec![Vec::new(); ways.len()];
                for _ in 0..arguments.rounds {
                    for (way, times) in ways.iter().zip(&mut times) {
                        times.push(round(&files, form, *way, size, senders, arguments.mib)?);
                    }
                }
                let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
                print!("{:>10}", size >> 10);
                for median in &medians {
                    print!("{median:>12.1}");
                }
                println!();
                rows.push((size, medians));
            }
            // The smallest size from which on the mapping is never dearer.
            let dearer = rows.iter().rposition(|(_, row)| row[1] > row[0]);
            let from = dearer.map_or(Some(0), |at| (at + 1 < rows.len()).then_some(at + 1));
            match from {
                Some(at) => println!("map from {} KiB", rows[at].0 >> 10),
                None => println!("map never"),
            }
        }
    }
    Ok(())
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A few files of a size, so that no message is the one just sent.
fn make(folder: &Path, form: Form, size: usize) -> Result<Vec<PathBuf>> {
    let line = format!("{:x>70}{}", "", form.line_end());
    let mut text = line.repeat(size.div_ceil(line.len()));
    text.truncate(size - form.line_end().len());
    text.push_str(form.line_end());
    let paths = (0..8).map(|number| {
        let path = folder.join(format!("{form:?}{size}-{number}"));
        if !path.exists() {
            fs::write(&path, &text).map_err(|e| e.to_string())?;
        }
        Ok(path)
    });
    paths.collect()
}

/// CPU time by message in microseconds.
#[allow(clippy::cast_precision_loss, reason = "figures of three digits")]
fn round(
    files: &[PathBuf],
    form: Form,
    way: Way,
    size: usize,
    senders: usize,
    mib: usize,
) -> Result<f64> {
    let messages = ((mib << 20) / size).max(2);
    let mut connections = Vec::new();
    for sender in 0..senders {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
        let address = listener
            .local_addr()
            .map_err(|e| e.to_string())?
            .to_string();
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let cpu = (1 - sender).to_string();
        let child = Command::new(program)
            .args(["receive", &address, &cpu])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let (stream, _) = listener.accept().map_err(|e| e.to_string())?;
        connections.push((stream, child));
    }
    let begun = cpu_time();
    let sent = thread::scope(|scope| {
        let threads: Vec<_> = connections
            .iter()
            .enumerate()
            .map(|(cpu, (stream, _))| {
                scope.spawn(move || -> Result<u64> {
                    pin(cpu)?;
                    let mut sender = Sender::new(stream);
                    for path in files.iter().cycle().take(messages) {
                        sender.send(path, form, way).map_err(|e| e.to_string())?;
                    }
                    Ok(sender.octets)
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(sent) => sent,
            Err(_) => Err("a sender panicked".to_owned()),
        });
        joined.collect::<Result<Vec<u64>>>()
    })?;
    let used = cpu_time().saturating_sub(begun);
    for ((stream, child), sent) in connections.into_iter().zip(sent) {
        drop(stream);
        let received = result_of(child)?;
        if received != sent {
            return Err(format!("{received} octets of {sent} came"));
        }
    }
    Ok(used.as_secs_f64() * 1e6 / (messages * senders) as f64)
}

fn result_of(mut child: Child) -> Result<u64> {
    let mut line = String::new();
    let stdout = child.stdout.take().ok_or("no output")?;
    BufReader::new(stdout)
        .read_line(&mut line)
        .map_err(|e| e.to_string())?;
    child.wait().map_err(|e| e.to_string())?;
    line.trim()
        .parse()
        .map_err(|_| format!("a receiver says {line:?}"))
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

struct Sender<'a> {
    stream: &'a TcpStream,
    text: Vec<u8>,
    out: Vec<u8>,
    octets: u64,
}

impl<'a> Sender<'a> {
    fn new(stream: &'a TcpStream) -> Self {
        Sender {
            stream,
            text: vec![0; limits::WINDOW],
            out: Vec::with_capacity(limits::WINDOW),
            octets: 0,
        }
    }

    fn send(&mut self, path: &Path, form: Form, way: Way) -> io::Result<()> {
        let file = File::open(path)?;
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        self.out.clear();
        self.out.extend_from_slice(FIRST_LINE);
        match (way, form) {
            (Way::Read, _) => self.read(&file, size, form)?,
            (Way::Map, Form::Text) => self.map_text(&file, size)?,
            (Way::Map, Form::Wire) => return self.map_wire(&file, size),
            (Way::Sendfile, _) => {
                rustix::net::send(self.stream, &self.out, rustix::net::SendFlags::MORE)?;
                self.octets += self.out.len() as u64;
                let mut offset = 0;
                while offset < size as u64 {
                    let left = size - usize::try_from(offset).unwrap_or(size);
                    rustix::fs::sendfile(self.stream, &file, Some(&mut offset), left)?;
                }
                self.octets += size as u64;
                self.out.clear();
            }
        }
        self.out.extend_from_slice(END);
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.octets += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }

    fn read(&mut self, file: &File, size: usize, form: Form) -> io::Result<()> {
        let mut encoder = Encoder::new();
        let mut offset = 0;
        while offset < size {
            let free = self.out.capacity() - self.out.len();
            let room = free.saturating_sub(limits::MESSAGE_END);
            if room < limits::SMALLEST_PIECE {
                self.flush()?;
                continue;
            }
            let wanted = (size - offset).min(room - room / 32);
            let read = file.read_at(&mut self.text[..wanted], offset as u64)?;
            match form {
                Form::Text => offset += encoder.encode(&self.text[..read], &mut self.out),
                Form::Wire => {
                    self.out.extend_from_slice(&self.text[..read]);
                    offset += read;
                }
            }
        }
        Ok(())
    }

    fn map_text(&mut self, file: &File, size: usize) -> io::Result<()> {
        // SAFETY: this program made the file and changes it no more.
        let map = unsafe { MmapOptions::new().len(size).map(file) }?;
        let mut encoder = Encoder::new();
        let mut offset = 0;
        while offset < size {
            let free = self.out.capacity() - self.out.len();
            let room = free.saturating_sub(limits::MESSAGE_END);
            if room < limits::SMALLEST_PIECE {
                self.flush()?;
                continue;
            }
            let wanted = (size - offset).min(room);
            map.advise_range(Advice::PopulateRead, offset, wanted)?;
            offset += encoder.encode(&map[offset..offset + wanted], &mut self.out);
        }
        Ok(())
    }

    fn map_wire(&mut self, file: &File, size: usize) -> io::Result<()> {
        // SAFETY: this program made the file and changes it no more.
        let map = unsafe { MmapOptions::new().len(size).map(file) }?;
        let mut offset = 0;
        while offset < size {
            let wanted = (size - offset).min(limits::SLICE);
            map.advise_range(Advice::PopulateRead, offset, wanted)?;
            let head = std::mem::take(&mut self.out);
            let end = if offset + wanted == size { END } else { b"" };
            let mut slices = [
                IoSlice::new(&head),
                IoSlice::new(&map[offset..offset + wanted]),
                IoSlice::new(end),
            ];
            let mut slices = &mut slices[..];
            while !slices.is_empty() {
                let sent = self.stream.write_vectored(slices)?;
                self.octets += sent as u64;
                IoSlice::advance_slices(&mut slices, sent);
            }
            offset += wanted;
            self.out = head;
            self.out.clear();
        }
        Ok(())
    }
}
