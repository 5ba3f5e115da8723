PRAGMA user_version = 0;
PRAGMA application_id = 0;
BEGIN;
CREATE TABLE tasker_schema (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT;
INSERT INTO "tasker_schema" VALUES (1, '0001_first', 1795330723000);
CREATE TABLE task_functions (
    name         TEXT    NOT NULL,
    version      TEXT    NOT NULL,
    source       TEXT    NOT NULL,
    modules      TEXT,
    schema       TEXT    NOT NULL,
    options      TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    published_at INTEGER NOT NULL,          -- the newest of a name is its current version
    PRIMARY KEY (name, version)
) STRICT;
INSERT INTO "task_functions" VALUES ('sequence', '28fea2d7203816c984ae2711d895e8a2f8e84c24bb5dc1bf60ddbd7ac724fb92', 'module.exports = async (input, { tools }) => { const seen = []; for (let i = 0; i < 6; i++) seen.push(await tools.svc.step(i)); seen.push(await tools.hold.here()); seen.push(await tools.svc.step(''end'')); return { input, seen } }', NULL, '{"name":"sequence","description":"","parameters":{"type":"object","properties":{"input":{}}},"returns":{},"errors":[]}', '{"grants":[],"entry":"sequence.js"}', 1767225600000, 1767225600000);
INSERT INTO "task_functions" VALUES ('caught', 'c655f600be25038074e4cb9af47b2cf679dc5f3f539e1b27e4e8754b309bb079', 'module.exports = async (input, { tools }) => { const seen = []; try { await tools.svc.fails(''first'') } catch (e) { seen.push([e.name, e.type, e.code, e.status, e.message]) } finally { seen.push(await tools.svc.step(''finally'')) } seen.push(await tools.hold.here()); try { await tools.svc.fails(''second'') } catch (e) { seen.push(e.message) } return seen }', NULL, '{"name":"caught","description":"","parameters":{"type":"object","properties":{"input":{}}},"returns":{},"errors":[]}', '{"grants":[],"entry":"caught.js"}', 1767225600000, 1767225600000);
INSERT INTO "task_functions" VALUES ('parallel', '32d4cb9cce61c52265e87ac4ce05d72a6252652ee71eddc81b6beaacbf4d269b', 'module.exports = async (input, { tools }) => { const all = await Promise.all([1, 2, 3, 4].map(n => tools.svc.step(n))); const race = await Promise.race([tools.svc.step(''fast''), tools.sleep(3600000)]); const settled = await Promise.allSettled([tools.svc.fails(''x''), tools.svc.step(''y'')]); const any = await Promise.any([tools.svc.fails(''x''), tools.svc.step(''z'')]); const held = await tools.hold.here(); return { all, race, settled: settled.map(s => s.status), any, held } }', NULL, '{"name":"parallel","description":"","parameters":{"type":"object","properties":{"input":{}}},"returns":{},"errors":[]}', '{"grants":[],"entry":"parallel.js"}', 1767225600000, 1767225600000);
INSERT INTO "task_functions" VALUES ('recorded', 'ff27cd89f9bf7c38ae3b61844b78266c5272e4e48b71ac0d8a27a92ad77824ec', 'module.exports = async (input, { tools }) => { const before = [Date.now(), new Date().toISOString(), Math.random(), crypto.randomUUID()]; await tools.sleep(5000); const after = [Date.now() > before[0], Math.random(), [...crypto.getRandomValues(new Uint8Array(4))]]; await tools.hold.here(before, after); return { before, after, last: [Math.random(), crypto.randomUUID()] } }', NULL, '{"name":"recorded","description":"","parameters":{"type":"object","properties":{"input":{}}},"returns":{},"errors":[]}', '{"grants":[],"entry":"recorded.js"}', 1767225600000, 1767225600000);
INSERT INTO "task_functions" VALUES ('child', '5d98ad5dedfc461674af43e4392c67a81c8827c22349d81cf64d51b0805a9517', 'module.exports = async (n, { tools }) => { const a = await tools.svc.step(n * 2); if (n === 3) await tools.hold.here(); return a + 1 }', NULL, '{"name":"child","description":"","parameters":{"type":"object","properties":{"n":{}}},"returns":{},"errors":[]}', '{"grants":[],"entry":"child.js"}', 1767225600000, 1767225600000);
INSERT INTO "task_functions" VALUES ('nested', 'f6af5e7f7f8f7e0f546113d1c6c09328af6d739762c938c1619fbf846f2c55a8', 'module.exports = async (input, { tools }) => { const seen = []; for (const n of [1, 2, 3]) seen.push(await tools.tasks.execute(''child'', n)); return seen }', NULL, '{"name":"nested","description":"","parameters":{"type":"object","properties":{"input":{}}},"returns":{},"errors":[]}', '{"grants":[],"entry":"nested.js"}', 1767225600000, 1767225600000);
INSERT INTO "task_functions" VALUES ('timers', '3456d4afa298827be2bbb83e81f3ab31bd4605e1d5f8cb6f9e14e065f57c3754', 'module.exports = async (input, { tools }) => { const seen = []; await new Promise(done => { let n = 0; const t = setInterval(() => { seen.push(++n); if (n === 3) { clearInterval(t); done() } }, 1000) }); await new Promise(r => setTimeout(r, 2000)); const c = setTimeout(() => seen.push(''never''), 10); clearTimeout(c); seen.push(await tools.hold.here()); await new Promise(r => setTimeout(() => { seen.push(''late''); r() }, 500)); return seen }', NULL, '{"name":"timers","description":"","parameters":{"type":"object","properties":{"input":{}}},"returns":{},"errors":[]}', '{"grants":[],"entry":"timers.js"}', 1767225600000, 1767225600000);
INSERT INTO "task_functions" VALUES ('iterated', '20acd99d2ecc3175bf410b1f973353ddbd97d7b4a3b6b373d4af774aac721352', 'async function* pages(tools) { let page = 0; while (page < 4) yield await tools.svc.step(page++) } module.exports = async (input, { tools }) => { const seen = []; for await (const page of pages(tools)) seen.push(page); seen.push(await tools.hold.here()); for await (const page of pages(tools)) seen.push(page * 10); return seen }', NULL, '{"name":"iterated","description":"","parameters":{"type":"object","properties":{"input":{}}},"returns":{},"errors":[]}', '{"grants":[],"entry":"iterated.js"}', 1767225600000, 1767225600000);
INSERT INTO "task_functions" VALUES ('fluent', 'd87de4853f8672988aff56cfa87177e94e595969be7a2528b6dfb376dfed4af5', 'module.exports = async (input, context) => { const { data } = await context.tools.base.from(''people'').select(''id, name'').eq(''id'', 1); await context.tools.hold.here(); const more = await context.tools.base.from(''people'').insert({ name: ''Ada'' }).select(); console.log(''end'', more); return { data, more } }', NULL, '{"name":"fluent","description":"","parameters":{"type":"object","properties":{"input":{}}},"returns":{},"errors":[]}', '{"grants":[],"entry":"fluent.js"}', 1767225600000, 1767225600000);
CREATE TABLE task_runs (
    id              TEXT    NOT NULL PRIMARY KEY,
    task            TEXT    NOT NULL,
    version         TEXT    NOT NULL,
    status          TEXT    NOT NULL CHECK (status = 'queued' OR status = 'processing' OR status = 'suspended' OR status = 'blocked' OR status = 'completed' OR status = 'failed' OR status = 'cancelled'),
    input           TEXT    NOT NULL,
    outcome         TEXT,                   -- JSON of the result, '' for undefined; JSON of the failure
    blocked_reason  TEXT,
    idempotency_key TEXT,
    request_hash    TEXT    NOT NULL,
    priority        INTEGER NOT NULL,
    run_at          INTEGER NOT NULL,
    deadline        INTEGER,
    labels          TEXT,                   -- JSON object; NULL when there are none
    correlation_id  TEXT,
    traceparent     TEXT,
    created_at      INTEGER NOT NULL,
    started_at      INTEGER,
    ended_at        INTEGER,
    cancel_by       INTEGER,
    folded_at       INTEGER,
    swept_at        INTEGER,                -- when the last of its stack runs was deleted
    record          BLOB
) STRICT;
INSERT INTO "task_runs" VALUES ('019b76da-a800-7336-8ae2-6805a6dfa099', 'sequence', '28fea2d7203816c984ae2711d895e8a2f8e84c24bb5dc1bf60ddbd7ac724fb92', 'suspended', '{"case":"sequence"}', NULL, NULL, NULL, '86b36ed5fa5f7649dc702c8be4c800a91d04ab43d2fc119ed040782d11024cb6', 0, 1767225600000, NULL, NULL, NULL, NULL, 1767225600000, 1767225600000, NULL, NULL, NULL, NULL, NULL);
INSERT INTO "task_runs" VALUES ('019b76da-afd0-748d-a0da-56c839c2b72e', 'caught', 'c655f600be25038074e4cb9af47b2cf679dc5f3f539e1b27e4e8754b309bb079', 'suspended', '{"case":"caught"}', NULL, NULL, NULL, '8dd011b1c65882095f56962dc8f47c86f9a20f845a64d449310341f26c177cf5', 0, 1767225602000, NULL, NULL, NULL, NULL, 1767225602000, 1767225602000, NULL, NULL, NULL, NULL, NULL);
INSERT INTO "task_runs" VALUES ('019b76da-b7a0-7039-b65e-e051841ef0a9', 'parallel', '32d4cb9cce61c52265e87ac4ce05d72a6252652ee71eddc81b6beaacbf4d269b', 'suspended', '{"case":"parallel"}', NULL, NULL, NULL, '6ef2e17d6383f17d91350229f916684edc5a0d2dddddd55750d3b8e4cff9b971', 0, 1767225604000, NULL, NULL, NULL, NULL, 1767225604000, 1767225604000, NULL, NULL, NULL, NULL, NULL);
INSERT INTO "task_runs" VALUES ('019b76da-c740-72b3-9002-a7b5dea8f151', 'recorded', 'ff27cd89f9bf7c38ae3b61844b78266c5272e4e48b71ac0d8a27a92ad77824ec', 'suspended', '{"case":"recorded"}', NULL, NULL, NULL, '199a3443bccbeec1221b709f72f2a316110bd65b8de6d8a61685df08dd61d449', 0, 1767225608000, NULL, NULL, NULL, NULL, 1767225608000, 1767225608000, NULL, NULL, NULL, NULL, NULL);
INSERT INTO "task_runs" VALUES ('019b76da-deb0-70d0-99ca-5cc2b1938828', 'nested', 'f6af5e7f7f8f7e0f546113d1c6c09328af6d739762c938c1619fbf846f2c55a8', 'suspended', '{"case":"nested"}', NULL, NULL, NULL, '78db50305037919d2cd3462c316b90508fa9b99b997c4dcffa64203cdd70eb70', 0, 1767225614000, NULL, NULL, NULL, NULL, 1767225614000, 1767225614000, NULL, NULL, NULL, NULL, NULL);
INSERT INTO "task_runs" VALUES ('019b76da-f238-75df-82bd-c425f900b4ef', 'timers', '3456d4afa298827be2bbb83e81f3ab31bd4605e1d5f8cb6f9e14e065f57c3754', 'suspended', '{"case":"timers"}', NULL, NULL, NULL, 'e21984cf09f10be2ab644ee01a52f176a9ebea9997b14c317237f276eed043b7', 0, 1767225619000, NULL, NULL, NULL, NULL, 1767225619000, 1767225619000, NULL, NULL, NULL, NULL, NULL);
INSERT INTO "task_runs" VALUES ('019b76db-09a8-7268-bd33-d42807be81ef', 'iterated', '20acd99d2ecc3175bf410b1f973353ddbd97d7b4a3b6b373d4af774aac721352', 'processing', '{"case":"iterated"}', NULL, NULL, NULL, 'dc8fea1114a932ae0074f50d92c8b03b4461cfd847db4f43c44b57c3f7faab88', 0, 1767225625000, NULL, NULL, NULL, NULL, 1767225625000, 1767225625000, NULL, NULL, NULL, NULL, NULL);
INSERT INTO "task_runs" VALUES ('019b76db-1560-7224-a893-264cb2039459', 'fluent', 'd87de4853f8672988aff56cfa87177e94e595969be7a2528b6dfb376dfed4af5', 'processing', '{"case":"fluent"}', NULL, NULL, NULL, 'e0c3ad69dd529a9c14589addd442d9ea5ab0397c8aa9c85ca01e0ca3e4425925', 0, 1767225628000, NULL, NULL, NULL, NULL, 1767225628000, 1767225628000, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE stack_runs (
    no              INTEGER PRIMARY KEY,    -- of this file: makes the indexes by parent a quarter of the size
    id              TEXT    NOT NULL UNIQUE,
    task_run_id     TEXT    NOT NULL,
    parent_id       TEXT,                   -- the frame that made it; NULL for the root frame
    parent_no       INTEGER,                -- the same frame's no
    kind            TEXT    NOT NULL CHECK (kind = 'frame' OR kind = 'call' OR kind = 'timer' OR kind = 'signal'),
    seq             INTEGER NOT NULL,
    depth           INTEGER NOT NULL,
    priority        INTEGER NOT NULL,       -- of the run
    status          TEXT    NOT NULL CHECK (status = 'pending' OR status = 'processing' OR status = 'suspended_waiting_child' OR status = 'pending_resume' OR status = 'blocked' OR status = 'completed' OR status = 'failed' OR status = 'cancelled'),
    owner           TEXT,
    epoch           INTEGER NOT NULL,
    turn            INTEGER NOT NULL,
    made_count      INTEGER NOT NULL,
    delivered_count INTEGER NOT NULL,
    dropped_count   INTEGER NOT NULL,       -- children cancelled by their own frame: neither open nor ever delivered
    delivered_order INTEGER,
    delivered_turn  INTEGER,
    delivered_at    INTEGER,
    attempt         INTEGER NOT NULL,
    in_doubt        INTEGER NOT NULL CHECK (in_doubt = 0 OR in_doubt = 1),
    due_at          INTEGER,
    ready_at        INTEGER,                -- NOT NULL exactly while anyone may claim the row: frame or call, waiting, without owner
    service         TEXT    NOT NULL,
    path            TEXT    NOT NULL,
    args            TEXT,
    version         TEXT,
    outcome         TEXT,
    blocked_reason  TEXT,
    created_at      INTEGER NOT NULL,
    started_at      INTEGER,
    settled_at      INTEGER
) STRICT;
INSERT INTO "stack_runs" VALUES (1, '019b76da-a800-76db-b37d-574fbcb06be0', '019b76da-a800-7336-8ae2-6805a6dfa099', NULL, NULL, 'frame', 0, 0, 0, 'suspended_waiting_child', NULL, 2, 7, 7, 6, 0, NULL, NULL, NULL, 0, 0, 1767225600000, NULL, 'task', 'sequence', NULL, NULL, NULL, NULL, 1767225600000, 1767225600000, NULL);
INSERT INTO "stack_runs" VALUES (2, '019b76da-a800-7349-81bb-69a0be5ade8a', '019b76da-a800-7336-8ae2-6805a6dfa099', '019b76da-a800-76db-b37d-574fbcb06be0', 1, 'call', 1, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 1, 1, 1767225600000, 1, 0, NULL, NULL, 'svc', 'step', '[0]', NULL, '0', NULL, 1767225600000, 1767225600000, 1767225600000);
INSERT INTO "stack_runs" VALUES (3, '019b76da-a800-7e9e-b934-252f607e716b', '019b76da-a800-7336-8ae2-6805a6dfa099', '019b76da-a800-76db-b37d-574fbcb06be0', 1, 'call', 2, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 2, 2, 1767225601000, 1, 0, NULL, NULL, 'svc', 'step', '[1]', NULL, '1', NULL, 1767225600000, 1767225600000, 1767225601000);
INSERT INTO "stack_runs" VALUES (4, '019b76da-abe8-7b48-8547-c7b564c32005', '019b76da-a800-7336-8ae2-6805a6dfa099', '019b76da-a800-76db-b37d-574fbcb06be0', 1, 'call', 3, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 3, 3, 1767225601000, 1, 0, NULL, NULL, 'svc', 'step', '[2]', NULL, '2', NULL, 1767225601000, 1767225601000, 1767225601000);
INSERT INTO "stack_runs" VALUES (5, '019b76da-abe8-7361-9fb7-6f77513e26cf', '019b76da-a800-7336-8ae2-6805a6dfa099', '019b76da-a800-76db-b37d-574fbcb06be0', 1, 'call', 4, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 4, 4, 1767225601000, 1, 0, NULL, NULL, 'svc', 'step', '[3]', NULL, '3', NULL, 1767225601000, 1767225601000, 1767225601000);
INSERT INTO "stack_runs" VALUES (6, '019b76da-abe8-70a7-a1bd-252dc9871ee9', '019b76da-a800-7336-8ae2-6805a6dfa099', '019b76da-a800-76db-b37d-574fbcb06be0', 1, 'call', 5, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 5, 5, 1767225601000, 1, 0, NULL, NULL, 'svc', 'step', '[4]', NULL, '4', NULL, 1767225601000, 1767225601000, 1767225601000);
INSERT INTO "stack_runs" VALUES (7, '019b76da-abe8-72f6-915b-da36ed5b5580', '019b76da-a800-7336-8ae2-6805a6dfa099', '019b76da-a800-76db-b37d-574fbcb06be0', 1, 'call', 6, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 6, 6, 1767225601000, 1, 0, NULL, NULL, 'svc', 'step', '[5]', NULL, '5', NULL, 1767225601000, 1767225601000, 1767225601000);
INSERT INTO "stack_runs" VALUES (8, '019b76da-abe8-760a-a4c1-1c8e1599f66d', '019b76da-a800-7336-8ae2-6805a6dfa099', '019b76da-a800-76db-b37d-574fbcb06be0', 1, 'call', 7, 0, 0, 'processing', '019b76da-a800-7ef9-8e9d-34e8247e5f86', 1, 0, 0, 0, 0, NULL, NULL, NULL, 1, 0, NULL, NULL, 'hold', 'here', '[]', NULL, NULL, NULL, 1767225601000, 1767225601000, NULL);
INSERT INTO "stack_runs" VALUES (9, '019b76da-afd0-74db-8979-14305c69c707', '019b76da-afd0-748d-a0da-56c839c2b72e', NULL, NULL, 'frame', 0, 0, 0, 'suspended_waiting_child', NULL, 2, 3, 3, 2, 0, NULL, NULL, NULL, 0, 0, 1767225602000, NULL, 'task', 'caught', NULL, NULL, NULL, NULL, 1767225602000, 1767225602000, NULL);
INSERT INTO "stack_runs" VALUES (10, '019b76da-afd0-7529-84bf-fd8ad93a9fbc', '019b76da-afd0-748d-a0da-56c839c2b72e', '019b76da-afd0-74db-8979-14305c69c707', 9, 'call', 1, 0, 0, 'failed', NULL, 1, 0, 0, 0, 0, 1, 1, 1767225602000, 1, 0, NULL, NULL, 'svc', 'fails', '["first"]', NULL, '{"name":"ServiceError","message":"no first","type":"CONFLICT_ERROR","code":"NO","status":409}', NULL, 1767225602000, 1767225602000, 1767225602000);
INSERT INTO "stack_runs" VALUES (11, '019b76da-afd0-7603-a634-874bd8c528af', '019b76da-afd0-748d-a0da-56c839c2b72e', '019b76da-afd0-74db-8979-14305c69c707', 9, 'call', 2, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 2, 2, 1767225603000, 1, 0, NULL, NULL, 'svc', 'step', '["finally"]', NULL, '"finally"', NULL, 1767225602000, 1767225602000, 1767225603000);
INSERT INTO "stack_runs" VALUES (12, '019b76da-b3b8-7777-ad77-045810fc4544', '019b76da-afd0-748d-a0da-56c839c2b72e', '019b76da-afd0-74db-8979-14305c69c707', 9, 'call', 3, 0, 0, 'processing', '019b76da-a800-7ef9-8e9d-34e8247e5f86', 1, 0, 0, 0, 0, NULL, NULL, NULL, 1, 0, NULL, NULL, 'hold', 'here', '[]', NULL, NULL, NULL, 1767225603000, 1767225603000, NULL);
INSERT INTO "stack_runs" VALUES (13, '019b76da-b7a0-7829-8ef3-11e21602b1ae', '019b76da-b7a0-7039-b65e-e051841ef0a9', NULL, NULL, 'frame', 0, 0, 0, 'suspended_waiting_child', NULL, 2, 8, 11, 9, 0, NULL, NULL, NULL, 0, 0, 1767225604000, NULL, 'task', 'parallel', NULL, NULL, NULL, NULL, 1767225604000, 1767225604000, NULL);
INSERT INTO "stack_runs" VALUES (14, '019b76da-b7a0-7ad8-8385-5ae662a1a811', '019b76da-b7a0-7039-b65e-e051841ef0a9', '019b76da-b7a0-7829-8ef3-11e21602b1ae', 13, 'call', 1, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 1, 1, 1767225604000, 1, 0, NULL, NULL, 'svc', 'step', '[1]', NULL, '1', NULL, 1767225604000, 1767225604000, 1767225604000);
INSERT INTO "stack_runs" VALUES (15, '019b76da-b7a0-7482-9688-27da32d7e30a', '019b76da-b7a0-7039-b65e-e051841ef0a9', '019b76da-b7a0-7829-8ef3-11e21602b1ae', 13, 'call', 2, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 2, 2, 1767225605000, 1, 0, NULL, NULL, 'svc', 'step', '[2]', NULL, '2', NULL, 1767225604000, 1767225604000, 1767225605000);
INSERT INTO "stack_runs" VALUES (16, '019b76da-b7a0-7f55-880b-e58e8e6b2934', '019b76da-b7a0-7039-b65e-e051841ef0a9', '019b76da-b7a0-7829-8ef3-11e21602b1ae', 13, 'call', 3, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 3, 2, 1767225605000, 1, 0, NULL, NULL, 'svc', 'step', '[3]', NULL, '3', NULL, 1767225604000, 1767225604000, 1767225605000);
INSERT INTO "stack_runs" VALUES (17, '019b76da-b7a0-703e-aabc-fb88e5a17ea0', '019b76da-b7a0-7039-b65e-e051841ef0a9', '019b76da-b7a0-7829-8ef3-11e21602b1ae', 13, 'call', 4, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 4, 2, 1767225605000, 1, 0, NULL, NULL, 'svc', 'step', '[4]', NULL, '4', NULL, 1767225604000, 1767225604000, 1767225605000);
INSERT INTO "stack_runs" VALUES (18, '019b76da-bb88-798f-b7b7-ce285b698eaf', '019b76da-b7a0-7039-b65e-e051841ef0a9', '019b76da-b7a0-7829-8ef3-11e21602b1ae', 13, 'call', 5, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 5, 3, 1767225605000, 1, 0, NULL, NULL, 'svc', 'step', '["fast"]', NULL, '"fast"', NULL, 1767225605000, 1767225605000, 1767225605000);
INSERT INTO "stack_runs" VALUES (19, '019b76da-bb88-75fa-a314-4543e15efe88', '019b76da-b7a0-7039-b65e-e051841ef0a9', '019b76da-b7a0-7829-8ef3-11e21602b1ae', 13, 'timer', 6, 0, 0, 'pending', NULL, 0, 0, 0, 0, 0, NULL, NULL, NULL, 0, 0, 1767229205000, NULL, 'timer', 'sleep', '3600000', NULL, NULL, NULL, 1767225605000, NULL, NULL);
INSERT INTO "stack_runs" VALUES (20, '019b76da-bb88-7b61-a78f-f014b99af40f', '019b76da-b7a0-7039-b65e-e051841ef0a9', '019b76da-b7a0-7829-8ef3-11e21602b1ae', 13, 'call', 7, 0, 0, 'failed', NULL, 1, 0, 0, 0, 0, 6, 4, 1767225606000, 1, 0, NULL, NULL, 'svc', 'fails', '["x"]', NULL, '{"name":"ServiceError","message":"no x","type":"CONFLICT_ERROR","code":"NO","status":409}', NULL, 1767225605000, 1767225605000, 1767225606000);
INSERT INTO "stack_runs" VALUES (21, '019b76da-bb88-7cbd-8814-c11b1900e617', '019b76da-b7a0-7039-b65e-e051841ef0a9', '019b76da-b7a0-7829-8ef3-11e21602b1ae', 13, 'call', 8, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 7, 5, 1767225606000, 1, 0, NULL, NULL, 'svc', 'step', '["y"]', NULL, '"y"', NULL, 1767225605000, 1767225605000, 1767225606000);
INSERT INTO "stack_runs" VALUES (22, '019b76da-bf70-7680-8eaa-088ecf42a816', '019b76da-b7a0-7039-b65e-e051841ef0a9', '019b76da-b7a0-7829-8ef3-11e21602b1ae', 13, 'call', 9, 0, 0, 'failed', NULL, 1, 0, 0, 0, 0, 8, 6, 1767225606000, 1, 0, NULL, NULL, 'svc', 'fails', '["x"]', NULL, '{"name":"ServiceError","message":"no x","type":"CONFLICT_ERROR","code":"NO","status":409}', NULL, 1767225606000, 1767225606000, 1767225606000);
INSERT INTO "stack_runs" VALUES (23, '019b76da-bf70-7e4f-984e-cc685ab7b035', '019b76da-b7a0-7039-b65e-e051841ef0a9', '019b76da-b7a0-7829-8ef3-11e21602b1ae', 13, 'call', 10, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 9, 7, 1767225607000, 1, 0, NULL, NULL, 'svc', 'step', '["z"]', NULL, '"z"', NULL, 1767225606000, 1767225606000, 1767225607000);
INSERT INTO "stack_runs" VALUES (24, '019b76da-c358-7eae-98aa-5036118ef9c8', '019b76da-b7a0-7039-b65e-e051841ef0a9', '019b76da-b7a0-7829-8ef3-11e21602b1ae', 13, 'call', 11, 0, 0, 'processing', '019b76da-a800-7ef9-8e9d-34e8247e5f86', 1, 0, 0, 0, 0, NULL, NULL, NULL, 1, 0, NULL, NULL, 'hold', 'here', '[]', NULL, NULL, NULL, 1767225607000, 1767225607000, NULL);
INSERT INTO "stack_runs" VALUES (25, '019b76da-c740-7738-a887-a80c9b9df129', '019b76da-c740-72b3-9002-a7b5dea8f151', NULL, NULL, 'frame', 0, 0, 0, 'suspended_waiting_child', NULL, 2, 2, 2, 1, 0, NULL, NULL, NULL, 0, 0, 1767225608000, NULL, 'task', 'recorded', NULL, NULL, NULL, NULL, 1767225608000, 1767225608000, NULL);
INSERT INTO "stack_runs" VALUES (26, '019b76da-c740-7286-9d52-a5eafa2bb900', '019b76da-c740-72b3-9002-a7b5dea8f151', '019b76da-c740-7738-a887-a80c9b9df129', 25, 'timer', 1, 0, 0, 'completed', NULL, 0, 0, 0, 0, 0, 1, 1, 1767225613000, 0, 0, 1767225613000, NULL, 'timer', 'sleep', '5000', NULL, '', NULL, 1767225608000, NULL, 1767225613000);
INSERT INTO "stack_runs" VALUES (27, '019b76da-dac8-7d67-a6a5-08420188947b', '019b76da-c740-72b3-9002-a7b5dea8f151', '019b76da-c740-7738-a887-a80c9b9df129', 25, 'call', 2, 0, 0, 'processing', '019b76da-a800-7ef9-8e9d-34e8247e5f86', 1, 0, 0, 0, 0, NULL, NULL, NULL, 1, 0, NULL, NULL, 'hold', 'here', '[[1767225608000,"2026-01-01T00:00:08.000Z",0.29593863535122744,"499aefd1-448a-4735-80fa-7341e4ac43ec"],[true,0.09201091162377273,[144,6,159,20]]]', NULL, NULL, NULL, 1767225613000, 1767225613000, NULL);
INSERT INTO "stack_runs" VALUES (28, '019b76da-deb0-7aff-85cd-a393dca425d7', '019b76da-deb0-70d0-99ca-5cc2b1938828', NULL, NULL, 'frame', 0, 0, 0, 'suspended_waiting_child', NULL, 2, 3, 3, 2, 0, NULL, NULL, NULL, 0, 0, 1767225614000, NULL, 'task', 'nested', NULL, NULL, NULL, NULL, 1767225614000, 1767225615000, NULL);
INSERT INTO "stack_runs" VALUES (29, '019b76da-e298-7254-8499-f0412278fed2', '019b76da-deb0-70d0-99ca-5cc2b1938828', '019b76da-deb0-7aff-85cd-a393dca425d7', 28, 'frame', 1, 1, 0, 'completed', NULL, 1, 2, 1, 1, 0, 1, 1, 1767225616000, 0, 0, NULL, NULL, 'tasks', 'child', '1', '5d98ad5dedfc461674af43e4392c67a81c8827c22349d81cf64d51b0805a9517', '3', NULL, 1767225615000, 1767225615000, 1767225615000);
INSERT INTO "stack_runs" VALUES (30, '019b76da-e298-7f61-afc3-a1dddd120425', '019b76da-deb0-70d0-99ca-5cc2b1938828', '019b76da-e298-7254-8499-f0412278fed2', 29, 'call', 1, 1, 0, 'completed', NULL, 1, 0, 0, 0, 0, 1, 1, 1767225615000, 1, 0, NULL, NULL, 'svc', 'step', '[2]', NULL, '2', NULL, 1767225615000, 1767225615000, 1767225615000);
INSERT INTO "stack_runs" VALUES (31, '019b76da-e680-7475-b895-3dbed4b3040f', '019b76da-deb0-70d0-99ca-5cc2b1938828', '019b76da-deb0-7aff-85cd-a393dca425d7', 28, 'frame', 2, 1, 0, 'completed', NULL, 1, 2, 1, 1, 0, 2, 2, 1767225617000, 0, 0, NULL, NULL, 'tasks', 'child', '2', '5d98ad5dedfc461674af43e4392c67a81c8827c22349d81cf64d51b0805a9517', '5', NULL, 1767225616000, 1767225616000, 1767225616000);
INSERT INTO "stack_runs" VALUES (32, '019b76da-e680-7678-a141-27a6073bdaa3', '019b76da-deb0-70d0-99ca-5cc2b1938828', '019b76da-e680-7475-b895-3dbed4b3040f', 31, 'call', 1, 1, 0, 'completed', NULL, 1, 0, 0, 0, 0, 1, 1, 1767225616000, 1, 0, NULL, NULL, 'svc', 'step', '[4]', NULL, '4', NULL, 1767225616000, 1767225616000, 1767225616000);
INSERT INTO "stack_runs" VALUES (33, '019b76da-ea68-731c-8ac8-842ee36d519f', '019b76da-deb0-70d0-99ca-5cc2b1938828', '019b76da-deb0-7aff-85cd-a393dca425d7', 28, 'frame', 3, 1, 0, 'suspended_waiting_child', NULL, 2, 2, 2, 1, 0, NULL, NULL, NULL, 0, 0, NULL, NULL, 'tasks', 'child', '3', '5d98ad5dedfc461674af43e4392c67a81c8827c22349d81cf64d51b0805a9517', NULL, NULL, 1767225617000, 1767225617000, NULL);
INSERT INTO "stack_runs" VALUES (34, '019b76da-ea68-7944-ad06-06b1387bdcf6', '019b76da-deb0-70d0-99ca-5cc2b1938828', '019b76da-ea68-731c-8ac8-842ee36d519f', 33, 'call', 1, 1, 0, 'completed', NULL, 1, 0, 0, 0, 0, 1, 1, 1767225617000, 1, 0, NULL, NULL, 'svc', 'step', '[6]', NULL, '6', NULL, 1767225617000, 1767225617000, 1767225617000);
INSERT INTO "stack_runs" VALUES (35, '019b76da-ea68-79c3-ab9d-473d81e96b0e', '019b76da-deb0-70d0-99ca-5cc2b1938828', '019b76da-ea68-731c-8ac8-842ee36d519f', 33, 'call', 2, 1, 0, 'processing', '019b76da-a800-7ef9-8e9d-34e8247e5f86', 1, 0, 0, 0, 0, NULL, NULL, NULL, 1, 0, NULL, NULL, 'hold', 'here', '[]', NULL, NULL, NULL, 1767225617000, 1767225617000, NULL);
INSERT INTO "stack_runs" VALUES (36, '019b76da-f238-7ecf-925d-63e281238f4e', '019b76da-f238-75df-82bd-c425f900b4ef', NULL, NULL, 'frame', 0, 0, 0, 'suspended_waiting_child', NULL, 2, 5, 6, 4, 1, NULL, NULL, NULL, 0, 0, 1767225619000, NULL, 'task', 'timers', NULL, NULL, NULL, NULL, 1767225619000, 1767225619000, NULL);
INSERT INTO "stack_runs" VALUES (37, '019b76da-f238-7528-9acf-6dadec5b0294', '019b76da-f238-75df-82bd-c425f900b4ef', '019b76da-f238-7ecf-925d-63e281238f4e', 36, 'timer', 1, 0, 0, 'completed', NULL, 0, 0, 0, 0, 0, 1, 1, 1767225620000, 0, 0, 1767225620000, NULL, 'timer', 'setInterval', '1000', NULL, '', NULL, 1767225619000, NULL, 1767225620000);
INSERT INTO "stack_runs" VALUES (38, '019b76da-f620-7f73-9f3b-8a8cbfd166b7', '019b76da-f238-75df-82bd-c425f900b4ef', '019b76da-f238-7ecf-925d-63e281238f4e', 36, 'timer', 2, 0, 0, 'completed', NULL, 0, 0, 0, 0, 0, 2, 2, 1767225621000, 0, 0, 1767225621000, NULL, 'timer', 'setInterval', '1000', NULL, '', NULL, 1767225620000, NULL, 1767225621000);
INSERT INTO "stack_runs" VALUES (39, '019b76da-fa08-7eac-89e7-75e4071bbed4', '019b76da-f238-75df-82bd-c425f900b4ef', '019b76da-f238-7ecf-925d-63e281238f4e', 36, 'timer', 3, 0, 0, 'completed', NULL, 0, 0, 0, 0, 0, 3, 3, 1767225622000, 0, 0, 1767225622000, NULL, 'timer', 'setInterval', '1000', NULL, '', NULL, 1767225621000, NULL, 1767225622000);
INSERT INTO "stack_runs" VALUES (40, '019b76da-fdf0-73d1-a46a-00d988d6b030', '019b76da-f238-75df-82bd-c425f900b4ef', '019b76da-f238-7ecf-925d-63e281238f4e', 36, 'timer', 4, 0, 0, 'completed', NULL, 0, 0, 0, 0, 0, 4, 4, 1767225624000, 0, 0, 1767225624000, NULL, 'timer', 'setTimeout', '2000', NULL, '', NULL, 1767225622000, NULL, 1767225624000);
INSERT INTO "stack_runs" VALUES (41, '019b76db-05c0-7d6d-a06b-fb37003299fa', '019b76da-f238-75df-82bd-c425f900b4ef', '019b76da-f238-7ecf-925d-63e281238f4e', 36, 'timer', 5, 0, 0, 'cancelled', NULL, 1, 0, 0, 0, 0, NULL, NULL, NULL, 0, 0, 1767225624010, NULL, 'timer', 'setTimeout', '10', NULL, NULL, NULL, 1767225624000, NULL, 1767225624000);
INSERT INTO "stack_runs" VALUES (42, '019b76db-05c0-7908-9c89-7d74b2be29ed', '019b76da-f238-75df-82bd-c425f900b4ef', '019b76da-f238-7ecf-925d-63e281238f4e', 36, 'call', 6, 0, 0, 'processing', '019b76da-a800-7ef9-8e9d-34e8247e5f86', 1, 0, 0, 0, 0, NULL, NULL, NULL, 1, 0, NULL, NULL, 'hold', 'here', '[]', NULL, NULL, NULL, 1767225624000, 1767225624000, NULL);
INSERT INTO "stack_runs" VALUES (43, '019b76db-09a8-7615-aa35-ca5a9c66f806', '019b76db-09a8-7268-bd33-d42807be81ef', NULL, NULL, 'frame', 0, 0, 0, 'suspended_waiting_child', '019b76da-a800-7ef9-8e9d-34e8247e5f86', 1, 5, 5, 4, 0, NULL, NULL, NULL, 0, 0, 1767225625000, NULL, 'task', 'iterated', NULL, NULL, NULL, NULL, 1767225625000, 1767225625000, NULL);
INSERT INTO "stack_runs" VALUES (44, '019b76db-09a8-7f1f-b922-8094cd283c97', '019b76db-09a8-7268-bd33-d42807be81ef', '019b76db-09a8-7615-aa35-ca5a9c66f806', 43, 'call', 1, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 1, 1, 1767225625000, 1, 0, NULL, NULL, 'svc', 'step', '[0]', NULL, '0', NULL, 1767225625000, 1767225625000, 1767225625000);
INSERT INTO "stack_runs" VALUES (45, '019b76db-09a8-75d1-a3e3-380f8af3d64f', '019b76db-09a8-7268-bd33-d42807be81ef', '019b76db-09a8-7615-aa35-ca5a9c66f806', 43, 'call', 2, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 2, 2, 1767225626000, 1, 0, NULL, NULL, 'svc', 'step', '[1]', NULL, '1', NULL, 1767225625000, 1767225625000, 1767225626000);
INSERT INTO "stack_runs" VALUES (46, '019b76db-0d90-7886-bc13-1f205e6542a7', '019b76db-09a8-7268-bd33-d42807be81ef', '019b76db-09a8-7615-aa35-ca5a9c66f806', 43, 'call', 3, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 3, 3, 1767225626000, 1, 0, NULL, NULL, 'svc', 'step', '[2]', NULL, '2', NULL, 1767225626000, 1767225626000, 1767225626000);
INSERT INTO "stack_runs" VALUES (47, '019b76db-0d90-7abc-9ebc-f9aedc8a0f97', '019b76db-09a8-7268-bd33-d42807be81ef', '019b76db-09a8-7615-aa35-ca5a9c66f806', 43, 'call', 4, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 4, 4, 1767225626000, 1, 0, NULL, NULL, 'svc', 'step', '[3]', NULL, '3', NULL, 1767225626000, 1767225626000, 1767225626000);
INSERT INTO "stack_runs" VALUES (48, '019b76db-0d90-7cdf-843e-42d14f3bcc85', '019b76db-09a8-7268-bd33-d42807be81ef', '019b76db-09a8-7615-aa35-ca5a9c66f806', 43, 'call', 5, 0, 0, 'processing', '019b76da-a800-7ef9-8e9d-34e8247e5f86', 1, 0, 0, 0, 0, NULL, NULL, NULL, 1, 0, NULL, NULL, 'hold', 'here', '[]', NULL, NULL, NULL, 1767225626000, 1767225626000, NULL);
INSERT INTO "stack_runs" VALUES (49, '019b76db-1560-7d03-bdf5-dd81dea494e5', '019b76db-1560-7224-a893-264cb2039459', NULL, NULL, 'frame', 0, 0, 0, 'suspended_waiting_child', '019b76da-a800-7ef9-8e9d-34e8247e5f86', 1, 2, 2, 1, 0, NULL, NULL, NULL, 0, 0, 1767225628000, NULL, 'task', 'fluent', NULL, NULL, NULL, NULL, 1767225628000, 1767225628000, NULL);
INSERT INTO "stack_runs" VALUES (50, '019b76db-1560-7231-b9ae-968846265d4b', '019b76db-1560-7224-a893-264cb2039459', '019b76db-1560-7d03-bdf5-dd81dea494e5', 49, 'call', 1, 0, 0, 'completed', NULL, 1, 0, 0, 0, 0, 1, 1, 1767225628000, 1, 0, NULL, NULL, 'base', 'from().select().eq()', '[["people"],["id, name"],["id",1]]', NULL, '{"data":"from(\"people\").select(\"id, name\").eq(\"id\",1)"}', NULL, 1767225628000, 1767225628000, 1767225628000);
INSERT INTO "stack_runs" VALUES (51, '019b76db-1560-7913-a753-452edf1d61d5', '019b76db-1560-7224-a893-264cb2039459', '019b76db-1560-7d03-bdf5-dd81dea494e5', 49, 'call', 2, 0, 0, 'processing', '019b76da-a800-7ef9-8e9d-34e8247e5f86', 1, 0, 0, 0, 0, NULL, NULL, NULL, 1, 0, NULL, NULL, 'hold', 'here', '[]', NULL, NULL, NULL, 1767225628000, 1767225628000, NULL);
CREATE TABLE log_lines (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,   -- the cursor: never used again, later lines are greater
    task_run_id TEXT    NOT NULL,
    frame_id    TEXT,
    time        INTEGER NOT NULL,
    level       TEXT    NOT NULL CHECK (level = 'debug' OR level = 'info' OR level = 'warn' OR level = 'error'),
    message     TEXT    NOT NULL,
    data        TEXT
) STRICT;
CREATE TABLE workers (
    id            TEXT    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL,
    state         TEXT    NOT NULL CHECK (state = 'live' OR state = 'dead'),
    registered_at INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL
) STRICT;
INSERT INTO "workers" VALUES ('019b76da-a800-7ef9-8e9d-34e8247e5f86', 'tasker-18085', 'live', 1767225600000, 1767225660000);
CREATE TABLE signals (
    id          TEXT    NOT NULL PRIMARY KEY,
    task_run_id TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    payload     TEXT    NOT NULL,
    sent_at     INTEGER NOT NULL,
    consumed_by TEXT UNIQUE                 -- the wait that it settled
) STRICT;
CREATE TABLE keystore (
    namespace  TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    bytes      BLOB    NOT NULL,            -- sealed
    key_id     TEXT    NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, key)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX task_functions_current ON task_functions (name, published_at);
CREATE UNIQUE INDEX task_runs_key ON task_runs (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX task_runs_by_status  ON task_runs (status, id);
CREATE INDEX task_runs_by_task    ON task_runs (task, id);
CREATE INDEX task_runs_to_cancel  ON task_runs (cancel_by) WHERE cancel_by IS NOT NULL AND ended_at IS NULL;
CREATE INDEX task_runs_to_fold    ON task_runs (ended_at)  WHERE ended_at IS NOT NULL AND folded_at IS NULL;
CREATE INDEX task_runs_to_sweep   ON task_runs (folded_at) WHERE folded_at IS NOT NULL AND swept_at IS NULL;
CREATE INDEX task_runs_to_delete  ON task_runs (status, ended_at) WHERE folded_at IS NOT NULL;
CREATE UNIQUE INDEX stack_runs_child     ON stack_runs (parent_no, seq) WHERE parent_no IS NOT NULL;
CREATE UNIQUE INDEX stack_runs_delivered ON stack_runs (parent_no, delivered_order) WHERE delivered_order IS NOT NULL;
CREATE INDEX stack_runs_unread  ON stack_runs (parent_no, seq) WHERE delivered_order IS NULL AND (status = 'completed' OR status = 'failed');
CREATE INDEX stack_runs_frames  ON stack_runs (task_run_id) WHERE kind = 'frame';
CREATE INDEX stack_runs_ready   ON stack_runs (kind, priority DESC, ready_at) WHERE ready_at IS NOT NULL;
CREATE INDEX stack_runs_owner   ON stack_runs (owner) WHERE owner IS NOT NULL;
CREATE INDEX stack_runs_due     ON stack_runs (due_at) WHERE kind = 'timer' AND status = 'pending';
CREATE INDEX stack_runs_waits   ON stack_runs (task_run_id, path) WHERE kind = 'signal' AND status = 'pending';
CREATE INDEX stack_runs_blocked ON stack_runs (task_run_id, id) WHERE status = 'blocked';
CREATE INDEX log_lines_by_run ON log_lines (task_run_id);
CREATE INDEX signals_by_run  ON signals (task_run_id);
CREATE INDEX signals_waiting ON signals (task_run_id, name) WHERE consumed_by IS NULL;
COMMIT;
