//! Keys: put, get, ranges, range streams, deletes, transactions.

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, GetResponse, PutOptions, SortOrder,
    SortTarget, Txn, TxnOp, TxnOpResponse,
};

use crate::access::Access;
use crate::check::{Failure, Outcome, equal, fails, holds, key, revision};

pub async fn put_and_get(access: &Access) -> Outcome {
    let mut client = access.client().await?;
    equal(client.get(key("missing"), None).await?.count(), 0)?;
    let first = client.put(key("a"), "1", None).await?;
    let second =
        client.put(key("a"), vec![0, 255], Some(PutOptions::new().with_prev_key())).await?;
    equal(second.prev_key().map(|kv| kv.value().to_vec()), Some(b"1".to_vec()))?;
    equal(revision(second.header()), revision(first.header()) + 1)?;
    let got = client.get(key("a"), Some(GetOptions::new().with_serializable())).await?;
    let kv = &got.kvs()[0];
    equal(kv.value(), &[0, 255])?;
    equal(
        (kv.create_revision(), kv.mod_revision(), kv.version()),
        (revision(first.header()), revision(second.header()), 2),
    )?;
    let old = GetOptions::new().with_revision(revision(first.header()));
    equal(client.get(key("a"), Some(old)).await?.kvs()[0].value(), b"1")?;
    fails(client.put("", "x", None).await, "etcdserver: key is not provided")
}

pub async fn large_value(access: &Access) -> Outcome {
    let mut client = access.client().await?;
    let large = vec![7; 1 << 20];
    client.put(key("large"), large.clone(), None).await?;
    equal(client.get(key("large"), None).await?.kvs()[0].value() == large, true)?;
    fails(
        client.put(key("large"), vec![7; 1_750_000], None).await,
        "etcdserver: request is too large",
    )
}

fn values(response: &GetResponse) -> Vec<&str> {
    response.kvs().iter().map(|kv| kv.value_str().unwrap_or("not text")).collect()
}

async fn three_keys(client: &mut Client, folder: &str) -> Result<String, Failure> {
    for (name, value) in [("1", "c"), ("2", "b"), ("3", "a")] {
        client.put(key(&format!("{folder}/{name}")), value, None).await?;
    }
    Ok(key(&format!("{folder}/")))
}

pub async fn ranges(access: &Access) -> Outcome {
    let mut client = access.client().await?;
    let prefix = three_keys(&mut client, "r").await?;
    let all = GetOptions::new().with_prefix();
    equal(values(&client.get(&*prefix, Some(all.clone())).await?), vec!["c", "b", "a"])?;
    let sorted = all.clone().with_sort(SortTarget::Value, SortOrder::Ascend).with_limit(2);
    let two = client.get(&*prefix, Some(sorted)).await?;
    equal((values(&two), two.more(), two.count()), (vec!["a", "b"], true, 3))?;
    let part = GetOptions::new().with_range(key("r/3"));
    equal(values(&client.get(key("r/2"), Some(part)).await?), vec!["b"])?;
    equal(
        values(&client.get(&*prefix, Some(all.clone().with_keys_only())).await?),
        vec!["", "", ""],
    )?;
    let count = client.get(&*prefix, Some(all.with_count_only())).await?;
    equal((count.count(), count.kvs().len()), (3, 0))?;
    let everything = GetOptions::new().with_all_keys().with_count_only();
    holds("root sees all", access.root().await?.get("", Some(everything)).await?.count() >= 3)
}

/// The same in pieces, which together are the whole.
pub async fn range_stream(access: &Access) -> Outcome {
    let mut client = access.client().await?;
    let prefix = key("stream/");
    for i in 0..50 {
        client.put(format!("{prefix}{i:02}"), vec![b'x'; 60_000], None).await?;
    }
    let mut stream =
        client.kv_client().get_stream(&*prefix, Some(GetOptions::new().with_prefix())).await?;
    let (mut pieces, mut keys, mut count) = (0, Vec::new(), 0);
    while let Some(piece) = stream.message().await? {
        pieces += 1;
        keys.extend(piece.kvs().iter().map(|kv| kv.key().to_vec()));
        count += piece.count();
    }
    let expected: Vec<_> = (0..50).map(|i| format!("{prefix}{i:02}").into_bytes()).collect();
    equal((keys, count), (expected, 50))?;
    holds("more than one piece", pieces > 1)
}

pub async fn deletes(access: &Access) -> Outcome {
    let mut client = access.client().await?;
    let prefix = three_keys(&mut client, "d").await?;
    let with_previous = DeleteOptions::new().with_prev_key();
    let one = client.delete(key("d/1"), Some(with_previous)).await?;
    equal((one.deleted(), one.prev_kvs()[0].value()), (1, b"c".as_slice()))?;
    equal(client.delete(key("d/1"), None).await?.deleted(), 0)?;
    let rest = client.delete(prefix, Some(DeleteOptions::new().with_prefix())).await?;
    equal(rest.deleted(), 2)
}

pub async fn transactions(access: &Access) -> Outcome {
    let mut client = access.client().await?;
    client.put(key("t"), "old", None).await?;
    let nested = Txn::new()
        .when([Compare::version(key("t"), CompareOp::Equal, 1)])
        .and_then([TxnOp::put(key("nested"), "yes", None)])
        .or_else([TxnOp::put(key("nested"), "no", None)]);
    let done = client
        .txn(
            Txn::new()
                .when([
                    Compare::value(key("t"), CompareOp::Equal, "old"),
                    Compare::create_revision(key("none"), CompareOp::Equal, 0),
                    Compare::mod_revision(key("t"), CompareOp::Greater, 1),
                    Compare::lease(key("t"), CompareOp::Equal, 0),
                ])
                .and_then([
                    TxnOp::put(key("t"), "new", None),
                    TxnOp::get(key("t"), None),
                    TxnOp::txn(nested),
                ]),
        )
        .await?;
    holds("it is done", done.succeeded())?;
    match &done.op_responses()[1] {
        TxnOpResponse::Get(got) => equal(values(got), vec!["new"])?,
        other => return Err(format!("got {other:?}").into()),
    }
    // The comparisons of nested transactions see what was before all of them.
    equal(values(&client.get(key("nested"), None).await?), vec!["yes"])?;
    let other = Txn::new()
        .when([Compare::value(key("t"), CompareOp::Equal, "old")])
        .or_else([TxnOp::delete(key("t"), None)]);
    equal(client.txn(other).await?.succeeded(), false)?;
    equal(client.get(key("t"), None).await?.count(), 0)?;
    let twice =
        Txn::new().and_then([TxnOp::put(key("t"), "1", None), TxnOp::put(key("t"), "2", None)]);
    fails(client.txn(twice).await, "etcdserver: duplicate key given in txn request")
}
