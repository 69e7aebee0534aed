//! A program with live events: one task that owns the connection, and a control side that sends it orders.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

use super::exec_session::{ExecSession, Input, Step, timed_out};
use super::{AgentClient, Connection, STALL_DEADLINE, exec_request, failure};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{ExecControl, ExecEvent, ExecHandle, ExecOptions, SandboxSpec, StdinSource};

/// Most bytes of output in flight: sent by the agent and not yet consumed by the caller.
const WINDOW: u64 = 8 << 20;
/// Consumed bytes are reported in steps of this size.
const CREDIT_STEP: u64 = WINDOW / 8;
/// Most unconsumed events; beyond it the socket is not read. Bounds an agent that sends its window byte by byte.
const EVENTS_MAX: usize = 32 << 10;
/// Pieces of output that are copied while they wait, in bytes.
const COPIED_BELOW: usize = 128 << 10;
/// Most input written in one piece; the program must take each piece within [`STALL_DEADLINE`].
const WRITE_PIECE: usize = 1 << 20;

/// Correlation ids are handed out anew with every connection; a handle's id is unique in this process.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

const RUNNING: u8 = 0;
const ENDED: u8 = 1;
const LOST: u8 = 2;

type Event = MicrosandboxResult<ExecEvent>;

enum Order {
    Signal(i32),
    Resize(u16, u16),
    Input(Input),
    EndInput,
}

/// What the task and the control side share.
struct Shared {
    /// Bytes consumed and not yet reported to the agent.
    consumed: AtomicU64,
    /// Output events in the channel.
    waiting: AtomicUsize,
    wake: Notify,
    state: AtomicU8,
}

struct Control {
    name: String,
    orders: mpsc::UnboundedSender<Order>,
    shared: Arc<Shared>,
    /// One writer at a time, so that its pieces stay together.
    writing: Mutex<()>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AgentClient<S> {
    /// Starts a program. Dropping the handle closes the connection; the agent then kills the program's tree.
    pub fn exec_stream(self, spec: &SandboxSpec, cmd: String, options: ExecOptions) -> MicrosandboxResult<ExecHandle> {
        let mut request = exec_request(spec, cmd, &options)?;
        request.window = Some(WINDOW);
        let name = self.connection.name().to_string();
        let mut session = ExecSession::begin(self.into_connection(), &request)?;
        let piped = options.stdin == StdinSource::Pipe;
        if let StdinSource::Bytes(data) = options.stdin {
            session.feed(Input { data, done: None });
        }
        if !piped {
            session.finish_input();
        }
        Ok(drive(name, session, options.timeout, piped))
    }

    /// The handle of a session that `begin` makes with this window; its input is a pipe.
    pub(super) fn exec_handle(
        self,
        begin: impl FnOnce(Connection<S>, u64) -> MicrosandboxResult<ExecSession<S>>,
    ) -> MicrosandboxResult<ExecHandle> {
        let name = self.connection.name().to_string();
        Ok(drive(name, begin(self.into_connection(), WINDOW)?, None, true))
    }
}

fn drive<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    name: String,
    session: ExecSession<S>,
    timeout: Option<std::time::Duration>,
    piped: bool,
) -> ExecHandle {
    let id = format!("exec-{}", NEXT_ID.fetch_add(1, Ordering::Relaxed));
    let shared = Arc::new(Shared {
        consumed: AtomicU64::new(0),
        waiting: AtomicUsize::new(0),
        wake: Notify::new(),
        state: AtomicU8::new(RUNNING),
    });
    let (orders, order_queue) = mpsc::unbounded_channel();
    let (events, event_queue) = mpsc::unbounded_channel();
    let driver = Driver { session, events, orders: order_queue, shared: shared.clone(), timeout };
    tokio::spawn(driver.run());
    let control = Control { name, orders, shared, writing: Mutex::new(()) };
    ExecHandle::new(id, event_queue, Arc::new(control), piped)
}

struct Driver<S> {
    session: ExecSession<S>,
    events: mpsc::UnboundedSender<Event>,
    orders: mpsc::UnboundedReceiver<Order>,
    shared: Arc<Shared>,
    timeout: Option<std::time::Duration>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    async fn run(mut self) {
        let last = match self.drive().await {
            Ok(Some(event)) => {
                self.shared.state.store(ENDED, Ordering::Release);
                Some(Ok(event))
            }
            // There is no receiver any more.
            Ok(None) => {
                self.shared.state.store(ENDED, Ordering::Release);
                None
            }
            Err(error) => {
                self.shared.state.store(LOST, Ordering::Release);
                Some(Err(error))
            }
        };
        if let Some(last) = last {
            let _ = self.events.send(last);
        }
    }

    /// Until the final event; `None` when the handle is gone.
    async fn drive(&mut self) -> MicrosandboxResult<Option<ExecEvent>> {
        loop {
            // Everything already read goes out in one go.
            while !self.crowded()
                && let Some(step) = self.session.buffered_step()?
            {
                if let Some(last) = self.deliver(step)? {
                    return Ok(Some(last));
                }
            }
            self.grant()?;
            let crowded = self.crowded();
            tokio::select! {
                step = self.session.step_or_hold(crowded) => {
                    if let Some(last) = self.deliver(step?)? {
                        return Ok(Some(last));
                    }
                }
                Some(order) = self.orders.recv() => self.obey(order)?,
                () = self.shared.wake.notified() => {}
                () = self.events.closed() => return Ok(None),
            }
            if crowded {
                self.session.forgive_silence();
            }
        }
    }

    fn crowded(&self) -> bool {
        self.shared.waiting.load(Ordering::Acquire) >= EVENTS_MAX
    }

    fn grant(&mut self) -> MicrosandboxResult<()> {
        if self.shared.consumed.load(Ordering::Acquire) < CREDIT_STEP {
            return Ok(());
        }
        let bytes = self.shared.consumed.swap(0, Ordering::AcqRel);
        self.session.grant(bytes)
    }

    /// Passes a step on; the final one is returned instead.
    fn deliver(&mut self, step: Step) -> MicrosandboxResult<Option<ExecEvent>> {
        let event = match step {
            Step::Started { pid } => ExecEvent::Started { pid },
            Step::Stdout(data) => self.output(ExecEvent::Stdout(detached(data))),
            Step::Stderr(data) => self.output(ExecEvent::Stderr(detached(data))),
            Step::StdinError { errno, message } => ExecEvent::StdinError { errno, message },
            Step::Exited(exit) => return Ok(Some(ExecEvent::Exited(exit))),
            Step::Failed(failure) => return Ok(Some(ExecEvent::Failed(failure))),
            Step::Overdue => return Err(timed_out(self.timeout, None)),
        };
        // A closed channel is noticed by the select above.
        let _ = self.events.send(Ok(event));
        Ok(None)
    }

    fn output(&self, event: ExecEvent) -> ExecEvent {
        self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        event
    }

    fn obey(&mut self, order: Order) -> MicrosandboxResult<()> {
        match order {
            Order::Signal(signal) => self.session.signal(signal),
            Order::Resize(rows, cols) => self.session.resize(rows, cols),
            Order::Input(input) => {
                self.session.feed(input);
                Ok(())
            }
            Order::EndInput => {
                self.session.finish_input();
                Ok(())
            }
        }
    }
}

/// Output that may wait: a small piece is copied, because a slice keeps the whole block in memory into which it was read. What
/// is not copied is at most [`WINDOW`] / [`COPIED_BELOW`] pieces, each in a block of its own at worst.
fn detached(data: Bytes) -> Bytes {
    if data.len() < COPIED_BELOW { Bytes::copy_from_slice(&data) } else { data }
}

impl Control {
    /// Hands an order to the task. A program that ended needs no orders, which is no error.
    fn order(&self, order: Order) -> MicrosandboxResult<()> {
        if self.orders.send(order).is_ok() || self.shared.state.load(Ordering::Acquire) != LOST {
            return Ok(());
        }
        Err(failure::lost(&self.name, "the connection of this run is gone"))
    }

    fn broken_pipe(&self) -> MicrosandboxError {
        MicrosandboxError::Io {
            context: format!("write to standard input of a program in sandbox {}", self.name),
            source: std::io::ErrorKind::BrokenPipe.into(),
        }
    }

    async fn write_piece(&self, data: Bytes) -> MicrosandboxResult<()> {
        let (done, taken) = oneshot::channel();
        if self.orders.send(Order::Input(Input { data, done: Some(done) })).is_err() {
            return Err(self.broken_pipe());
        }
        match tokio::time::timeout(STALL_DEADLINE, taken).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(_refused_or_ended) => Err(self.broken_pipe()),
            Err(_elapsed) => {
                Err(MicrosandboxError::GuestStalled { name: self.name.clone(), secs: STALL_DEADLINE.as_secs_f64() })
            }
        }
    }
}

impl ExecControl for Control {
    fn signal(&self, signal: i32) -> BoxFuture<'_, MicrosandboxResult<()>> {
        Box::pin(async move {
            if !(1..=64).contains(&signal) {
                return Err(MicrosandboxError::InvalidConfig(format!("signal {signal} is not in 1 to 64")));
            }
            self.order(Order::Signal(signal))
        })
    }

    fn resize(&self, rows: u16, cols: u16) -> BoxFuture<'_, MicrosandboxResult<()>> {
        Box::pin(async move {
            if rows == 0 || cols == 0 {
                return Err(MicrosandboxError::InvalidConfig("a terminal has at least one row and one column".into()));
            }
            self.order(Order::Resize(rows, cols))
        })
    }

    fn write_stdin(&self, mut data: Bytes) -> BoxFuture<'_, MicrosandboxResult<()>> {
        Box::pin(async move {
            let _turn = self.writing.lock().await;
            while !data.is_empty() {
                let piece = data.split_to(data.len().min(WRITE_PIECE));
                self.write_piece(piece).await?;
            }
            Ok(())
        })
    }

    fn close_stdin(&self) -> BoxFuture<'_, MicrosandboxResult<()>> {
        Box::pin(async move {
            let _turn = self.writing.lock().await;
            self.order(Order::EndInput)
        })
    }

    fn consumed(&self, bytes: u64) {
        let before = self.shared.consumed.fetch_add(bytes, Ordering::AcqRel);
        let waiting = self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
        let due = before < CREDIT_STEP && before + bytes >= CREDIT_STEP;
        if due || waiting == EVENTS_MAX {
            self.shared.wake.notify_one();
        }
    }
}
