//! Packets of arbitrary bytes: refused, or messages that can be told on. What a worker says unasked answers no question.
#![no_main]

use libfuzzer_sys::fuzz_target;
use microfaas_control::admin::{AdminAnswer, AdminRequest};
use microfaas_control::attach::{FromHost, ToHost};
use microfaas_control::stats::NodeStats;
use microfaas_control::{PACKET_BYTES_MAX, PacketError, ToNode, ToWorker, Unload, decode, encode};

/// Says it again, to somebody else.
fn tell_on(packet: Result<Vec<u8>, PacketError>) -> Option<Vec<u8>> {
    match packet {
        Ok(packet) => {
            assert!(packet.len() <= PACKET_BYTES_MAX);
            Some(packet)
        }
        Err(error) => {
            assert!(matches!(error, PacketError::TooLong(_)), "{error}");
            None
        }
    }
}

fuzz_target!(|packet: &[u8]| {
    if let Ok(message) = decode::<ToNode>(packet) {
        if let Some(again) = tell_on(encode(&message)) {
            assert_eq!(decode::<ToNode>(&again).as_ref(), Ok(&message));
        }
        let questions = [
            ToWorker::RemoveLane { lane: 1 },
            ToWorker::Bans { functions: Vec::new() },
            ToWorker::Ping,
            ToWorker::Seal,
            ToWorker::Shelve { modules: Vec::new() },
            ToWorker::Unload(Unload { module: 1, successors: Vec::new() }),
            ToWorker::Retire,
            ToWorker::Serve,
        ];
        let answered = questions.iter().filter(|question| message.answers(question)).count();
        let is_unasked = matches!(
            message,
            ToNode::LaneFault { .. }
                | ToNode::Fault { .. }
                | ToNode::Wanted { .. }
                | ToNode::Evicted { .. }
                | ToNode::Unloaded { .. }
                | ToNode::Fatal { .. }
        );
        assert!(answered <= usize::from(!is_unasked));
        if let ToNode::Ready { sandbox } = &message {
            assert_eq!(sandbox.to_string().is_empty(), sandbox.entries.is_empty());
        }
    }
    if let Ok(message) = decode::<ToWorker>(packet)
        && let Some(again) = tell_on(encode(&message))
    {
        assert_eq!(decode::<ToWorker>(&again), Ok(message));
    }
    if let Ok(message) = decode::<FromHost>(packet) {
        tell_on(encode(&message));
        if let FromHost::Admin { request, .. } = message
            && let Ok(request) = AdminRequest::from_value(request)
        {
            assert_eq!(AdminRequest::from_value(request.to_value()), Ok(request));
        }
    }
    if let Ok(message) = decode::<ToHost>(packet) {
        tell_on(encode(&message));
        if let ToHost::Admin { answer, .. } = message {
            let answer = AdminAnswer::from_value(answer).to_value();
            tell_on(encode(&ToHost::Admin { id: 0, answer: Ok(answer) }));
        }
    }
    if let Ok(stats) = decode::<NodeStats>(packet) {
        tell_on(encode(&stats));
    }
});
