use cortado_protocol::frame::encode;

use super::*;
use crate::{Authority, Endpoint, Kind, NodeTls, Role};

/// A stream between two endpoints of this process; the endpoints must outlive it.
async fn stream() -> (SendStream, RecvStream, Vec<(Endpoint, quinn::Connection)>) {
    let peers = Authority::generate("dev", Role::Peer).unwrap();
    let clients = Authority::generate("dev", Role::Client).unwrap();
    let node = |id: &str| {
        let issued = peers.issue_node(id.parse().unwrap(), &[], &[]).unwrap();
        let tls = NodeTls::from_pem(
            "dev",
            issued.certificate_pem.as_bytes(),
            issued.key_pem.as_bytes(),
            peers.certificate_pem().as_bytes(),
            clients.certificate_pem().as_bytes(),
        );
        Endpoint::node(Kind::Peer, ([127, 0, 0, 1], 0).into(), &tls.unwrap()).unwrap()
    };
    let (a, b) = (node("a"), node("b"));
    let (dialled, accepted) = tokio::join!(a.dial(b.local_addr().unwrap(), None), async {
        b.accept().await.unwrap().complete().await
    });
    let (dialled, (accepted, _)) = (dialled.unwrap(), accepted.unwrap());
    let (mut send, _) = dialled.open_bi().await.unwrap();
    // The other side sees a stream only with its first byte.
    send.write_all(&encode(&0u8, b"")).await.unwrap();
    let (_, recv) = accepted.accept_bi().await.unwrap();
    (send, recv, vec![(a, dialled), (b, accepted)])
}

#[tokio::test]
async fn frames_of_all_sizes_round_trip() {
    let (send, recv, _keep) = stream().await;
    let (mut writer, mut reader) = (FrameWriter::new(send), FrameReader::new(recv, 9 << 20));
    let sizes = [0usize, 1, 3, 4, 1000, 65_000, 70_000, 1 << 20, 8 << 20, 2];
    let frames: Vec<Bytes> =
        sizes.iter().map(|size| encode(&(*size as u64), &vec![*size as u8; *size])).collect();
    let writing = tokio::spawn(async move {
        for frame in frames.clone() {
            writer.write(frame).await.unwrap();
        }
        let mut frames = frames;
        writer.write_many(&mut frames).await.unwrap();
        writer.finish();
        writer
    });
    assert_eq!(reader.message::<u8>().await.unwrap().unwrap().0, 0);
    for size in sizes.iter().chain(&sizes) {
        let announced = reader.peek_len().await.unwrap().unwrap();
        let (head, tail) = reader.message::<u64>().await.unwrap().unwrap();
        assert_eq!((head, tail.len()), (*size as u64, *size));
        assert!(announced > *size && tail.iter().all(|b| *b == *size as u8));
    }
    assert!(reader.next().await.unwrap().is_none());
    assert!(reader.peek_len().await.unwrap().is_none());
    writing.await.unwrap();
}

#[tokio::test]
async fn an_oversized_frame_is_refused_by_its_prefix() {
    let (mut send, recv, _keep) = stream().await;
    let mut reader = FrameReader::new(recv, 1000);
    reader.next().await.unwrap();
    send.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    let error = reader.next().await.unwrap_err();
    assert!(matches!(error, ReadError::Frame(FrameError::TooLarge { limit: 1000, .. })), "{error}");
    assert!(reader.partial.capacity() < 1000);
}

#[tokio::test]
async fn a_stream_that_ends_within_a_frame_is_an_error() {
    for cut in [2, 4, 9] {
        let (mut send, recv, _keep) = stream().await;
        let mut reader = FrameReader::new(recv, 1000);
        reader.next().await.unwrap();
        send.write_all(&encode(&7u8, b"tail")[..cut]).await.unwrap();
        send.finish().unwrap();
        let error = reader.next().await.unwrap_err();
        assert!(matches!(error, ReadError::Frame(FrameError::Truncated)), "{error}");
    }
}

#[tokio::test]
async fn a_cancelled_read_loses_nothing() {
    let (mut send, recv, _keep) = stream().await;
    let mut reader = FrameReader::new(recv, 1 << 20);
    reader.next().await.unwrap();
    let frame = encode(&7u8, &[9; 300_000]);
    let mut got = Vec::new();
    for piece in frame.chunks(100_000) {
        send.write_all(piece).await.unwrap();
        tokio::select! {
            biased;
            message = reader.message::<u8>() => got.push(message.unwrap().unwrap()),
            () = tokio::task::yield_now() => {}
        }
    }
    send.write_all(&encode(&8u8, b"")).await.unwrap();
    while got.len() < 2 {
        got.push(reader.message::<u8>().await.unwrap().unwrap());
    }
    assert_eq!(got, [(7, Bytes::from(vec![9; 300_000])), (8, Bytes::new())]);
}
