BEGIN TRANSACTION;
CREATE TABLE agents (
	id VARCHAR(128) NOT NULL, 
	host_id VARCHAR(64) NOT NULL, 
	user_name VARCHAR(128) NOT NULL, 
	pid INTEGER NOT NULL, 
	version VARCHAR(64) NOT NULL, 
	shared_home SMALLINT NOT NULL, 
	draining SMALLINT NOT NULL, 
	seen_at BIGINT NOT NULL, 
	CONSTRAINT pk_agents PRIMARY KEY (id), 
	CONSTRAINT fk_agents_host_id FOREIGN KEY(host_id) REFERENCES hosts (id) ON DELETE CASCADE
);
INSERT INTO "agents" VALUES('near','host-near','ada',4711,'0.1.0',0,0,1800000157000000);
INSERT INTO "agents" VALUES('far','host-far','ada',4711,'0.1.0',0,0,1800000002000000);
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE attempts (
	id VARCHAR(32) NOT NULL, 
	run_id VARCHAR(12) NOT NULL, 
	number INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	agent_id VARCHAR(128) NOT NULL, 
	host_id VARCHAR(64) NOT NULL, 
	slots TEXT NOT NULL, 
	phase VARCHAR(16) NOT NULL, 
	active SMALLINT NOT NULL, 
	lease_until BIGINT NOT NULL, 
	assigned_at BIGINT NOT NULL, 
	started_at BIGINT, 
	ended_at BIGINT, 
	lost_at BIGINT, 
	exit_code INTEGER, 
	signal INTEGER, 
	reason VARCHAR(32), 
	origin VARCHAR(16), 
	end_detail TEXT, 
	log_bytes BIGINT, 
	log_dropped BIGINT, 
	CONSTRAINT pk_attempts PRIMARY KEY (id), 
	CONSTRAINT fk_attempts_run_id FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE, 
	CONSTRAINT uq_attempts_run_id_number UNIQUE (run_id, number)
);
INSERT INTO "attempts" VALUES('94f8830bdbbfa32b257a3a7f07c4c41c','up4myqy6qt5k',1,1,'near','host-near','["gpu0"]','ended',0,1800000060000000,1800000000000000,1800000001000000,1800000002000000,NULL,0,NULL,'exited','user',NULL,0,0);
INSERT INTO "attempts" VALUES('67db4077b5d540a03a6552d4c93140a2','7z76iw3my2az',1,1,'near','host-near','["gpu0"]','ended',0,1800000062000000,1800000002000000,1800000001000000,1800000002000000,NULL,3,NULL,'exited','user',NULL,0,0);
INSERT INTO "attempts" VALUES('3f83daccf6a969991660b7efcbc2e51c','7z76iw3my2az',2,2,'near','host-near','["gpu0"]','ended',0,1800000062000000,1800000002000000,1800000001000000,1800000002000000,NULL,3,NULL,'exited','user',NULL,0,0);
INSERT INTO "attempts" VALUES('6240edb41bb11b84617a3c328a7c5e1b','5qndnqnwqf3u',1,1,'near','host-near','["gpu0"]','ended',0,1800000062000000,1800000002000000,1800000001000000,1800000002000000,NULL,NULL,NULL,'supervisor_died','infra',NULL,0,0);
INSERT INTO "attempts" VALUES('75b4b527ab78cba6616a85d32d868dd1','5qndnqnwqf3u',2,2,'near','host-near','["gpu0"]','ended',0,1800000062000000,1800000002000000,1800000001000000,1800000002000000,NULL,NULL,11,'signaled','user',NULL,0,0);
INSERT INTO "attempts" VALUES('3421757c83e56d6d52c29f6c3ff3e449','ilfzdb3ac4gh',1,1,'far','host-far','["gpu0"]','running',1,1800000062000000,1800000002000000,1800000002000000,NULL,1800000067000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "attempts" VALUES('a15f51160a5a94a23fe94b8af91f0bab','6suqushyl4cf',1,1,'near','host-near','["gpu0","gpu1"]','running',1,1800000217000000,1800000157000000,1800000157000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE environments (
	hash VARCHAR(64) NOT NULL, 
	content TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_environments PRIMARY KEY (hash)
);
INSERT INTO "environments" VALUES('c463b4ca700bb2af5c97914f28f7670ed05ee8642be4ec97839a1b99d05349a0','{"packages":{"numpy":"2.1"},"python":"3.12.1"}',1800000000000000);
CREATE TABLE events (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at BIGINT NOT NULL, 
	run_id VARCHAR(12), 
	attempt_id VARCHAR(32), 
	kind VARCHAR(32) NOT NULL, 
	from_state VARCHAR(16), 
	to_state VARCHAR(16), 
	actor VARCHAR(128) NOT NULL, 
	detail TEXT
);
INSERT INTO "events" VALUES(1,1800000000000000,'up4myqy6qt5k',NULL,'submitted',NULL,'queued','ada',NULL);
INSERT INTO "events" VALUES(2,1800000000000000,'up4myqy6qt5k','94f8830bdbbfa32b257a3a7f07c4c41c','assigned','queued','running','yard','{"host":"host-near","slots":["host-near:gpu0"]}');
INSERT INTO "events" VALUES(3,1800000000000000,'up4myqy6qt5k','94f8830bdbbfa32b257a3a7f07c4c41c','staging','running','running','yard',NULL);
INSERT INTO "events" VALUES(4,1800000000000000,'up4myqy6qt5k','94f8830bdbbfa32b257a3a7f07c4c41c','running','running','running','yard',NULL);
INSERT INTO "events" VALUES(5,1800000002000000,'up4myqy6qt5k','94f8830bdbbfa32b257a3a7f07c4c41c','ended','running','finished','yard','{"attempt":1,"exit_code":0,"origin":"user","reason":"exited","signal":null}');
INSERT INTO "events" VALUES(6,1800000002000000,'7z76iw3my2az',NULL,'submitted',NULL,'queued','ada',NULL);
INSERT INTO "events" VALUES(7,1800000002000000,'7z76iw3my2az','67db4077b5d540a03a6552d4c93140a2','assigned','queued','running','yard','{"host":"host-near","slots":["host-near:gpu0"]}');
INSERT INTO "events" VALUES(8,1800000002000000,'7z76iw3my2az','67db4077b5d540a03a6552d4c93140a2','staging','running','running','yard',NULL);
INSERT INTO "events" VALUES(9,1800000002000000,'7z76iw3my2az','67db4077b5d540a03a6552d4c93140a2','running','running','running','yard',NULL);
INSERT INTO "events" VALUES(10,1800000002000000,'7z76iw3my2az','67db4077b5d540a03a6552d4c93140a2','requeued','running','queued','yard','{"failures":1,"reason":"exited"}');
INSERT INTO "events" VALUES(11,1800000002000000,'7z76iw3my2az','3f83daccf6a969991660b7efcbc2e51c','assigned','queued','running','yard','{"host":"host-near","slots":["host-near:gpu0"]}');
INSERT INTO "events" VALUES(12,1800000002000000,'7z76iw3my2az','3f83daccf6a969991660b7efcbc2e51c','staging','running','running','yard',NULL);
INSERT INTO "events" VALUES(13,1800000002000000,'7z76iw3my2az','3f83daccf6a969991660b7efcbc2e51c','running','running','running','yard',NULL);
INSERT INTO "events" VALUES(14,1800000002000000,'7z76iw3my2az','3f83daccf6a969991660b7efcbc2e51c','ended','running','failed','yard','{"attempt":2,"exit_code":3,"origin":"user","reason":"exited","signal":null}');
INSERT INTO "events" VALUES(15,1800000002000000,'unizjiuv7hbg',NULL,'submitted',NULL,'queued','ada',NULL);
INSERT INTO "events" VALUES(16,1800000002000000,'unizjiuv7hbg',NULL,'ended','queued','failed','yard','{"dependency":"7z76iw3my2az","exit_code":null,"origin":"scheduler","reason":"dependency_failed","signal":null}');
INSERT INTO "events" VALUES(17,1800000002000000,'5qndnqnwqf3u',NULL,'submitted',NULL,'queued','ada',NULL);
INSERT INTO "events" VALUES(18,1800000002000000,'5qndnqnwqf3u','6240edb41bb11b84617a3c328a7c5e1b','assigned','queued','running','yard','{"host":"host-near","slots":["host-near:gpu0"]}');
INSERT INTO "events" VALUES(19,1800000002000000,'5qndnqnwqf3u','6240edb41bb11b84617a3c328a7c5e1b','staging','running','running','yard',NULL);
INSERT INTO "events" VALUES(20,1800000002000000,'5qndnqnwqf3u','6240edb41bb11b84617a3c328a7c5e1b','running','running','running','yard',NULL);
INSERT INTO "events" VALUES(21,1800000002000000,'5qndnqnwqf3u','6240edb41bb11b84617a3c328a7c5e1b','requeued','running','queued','yard','{"losses":1,"reason":"supervisor_died"}');
INSERT INTO "events" VALUES(22,1800000002000000,'5qndnqnwqf3u','75b4b527ab78cba6616a85d32d868dd1','assigned','queued','running','yard','{"host":"host-near","slots":["host-near:gpu0"]}');
INSERT INTO "events" VALUES(23,1800000002000000,'5qndnqnwqf3u','75b4b527ab78cba6616a85d32d868dd1','staging','running','running','yard',NULL);
INSERT INTO "events" VALUES(24,1800000002000000,'5qndnqnwqf3u','75b4b527ab78cba6616a85d32d868dd1','running','running','running','yard',NULL);
INSERT INTO "events" VALUES(25,1800000002000000,'5qndnqnwqf3u','75b4b527ab78cba6616a85d32d868dd1','ended','running','failed','yard','{"attempt":2,"exit_code":null,"origin":"user","reason":"signaled","signal":11}');
INSERT INTO "events" VALUES(26,1800000002000000,'muaqmtx6s6fg',NULL,'submitted',NULL,'held','ada',NULL);
INSERT INTO "events" VALUES(27,1800000002000000,'muaqmtx6s6fg',NULL,'ended','held','killed','ada','{"exit_code":null,"origin":"human","reason":"stopped","signal":null}');
INSERT INTO "events" VALUES(28,1800000002000000,'muaqmtx6s6fg',NULL,'trashed','killed','killed','ada',NULL);
INSERT INTO "events" VALUES(29,1800000002000000,'ilfzdb3ac4gh',NULL,'submitted',NULL,'queued','ada',NULL);
INSERT INTO "events" VALUES(30,1800000002000000,'ilfzdb3ac4gh','3421757c83e56d6d52c29f6c3ff3e449','assigned','queued','running','yard','{"host":"host-far","slots":["host-far:gpu0"]}');
INSERT INTO "events" VALUES(31,1800000002000000,'ilfzdb3ac4gh','3421757c83e56d6d52c29f6c3ff3e449','staging','running','running','yard',NULL);
INSERT INTO "events" VALUES(32,1800000002000000,'ilfzdb3ac4gh','3421757c83e56d6d52c29f6c3ff3e449','running','running','running','yard',NULL);
INSERT INTO "events" VALUES(33,1800000067000000,'ilfzdb3ac4gh','3421757c83e56d6d52c29f6c3ff3e449','lost','running','lost','yard',NULL);
INSERT INTO "events" VALUES(34,1800000157000000,'6suqushyl4cf',NULL,'submitted',NULL,'queued','ada',NULL);
INSERT INTO "events" VALUES(35,1800000157000000,'6suqushyl4cf','a15f51160a5a94a23fe94b8af91f0bab','assigned','queued','running','yard','{"host":"host-near","slots":["host-near:gpu0","host-near:gpu1"]}');
INSERT INTO "events" VALUES(36,1800000157000000,'6suqushyl4cf','a15f51160a5a94a23fe94b8af91f0bab','staging','running','running','yard',NULL);
INSERT INTO "events" VALUES(37,1800000157000000,'6suqushyl4cf','a15f51160a5a94a23fe94b8af91f0bab','running','running','running','yard',NULL);
INSERT INTO "events" VALUES(38,1800000157000000,'meg3hjqtb6q7',NULL,'submitted',NULL,'queued','ada',NULL);
INSERT INTO "events" VALUES(39,1800000157000000,'gjbaynrm5aaa',NULL,'submitted',NULL,'held','ada',NULL);
INSERT INTO "events" VALUES(40,1800000157000000,'up4myqy6qt5k',NULL,'edited','finished','finished','ada','{"add_tags":["late"]}');
CREATE TABLE hosts (
	id VARCHAR(64) NOT NULL, 
	name TEXT NOT NULL, 
	boot_id VARCHAR(64) NOT NULL, 
	cpus INTEGER NOT NULL, 
	mem BIGINT NOT NULL, 
	info TEXT NOT NULL, 
	disk_free BIGINT, 
	seen_at BIGINT NOT NULL, 
	CONSTRAINT pk_hosts PRIMARY KEY (id)
);
INSERT INTO "hosts" VALUES('host-near','host-near','boot-1',8,68719476736,'{"boot_id":"boot-1","cpus":8,"gpus":[],"id":"host-near","mem":68719476736,"name":"host-near","os":"Linux"}',1099511627776,1800000157000000);
INSERT INTO "hosts" VALUES('host-far','host-far','boot-1',4,68719476736,'{"boot_id":"boot-1","cpus":4,"gpus":[],"id":"host-far","mem":68719476736,"name":"host-far","os":"Linux"}',NULL,1800000002000000);
CREATE TABLE meta (
	name VARCHAR(64) NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_meta PRIMARY KEY (name)
);
INSERT INTO "meta" VALUES('yard','99ba1945b0fbda0fc0ca184056d7b620');
CREATE TABLE outputs (
	run_id VARCHAR(12) NOT NULL, 
	path_hash VARCHAR(64) NOT NULL, 
	path TEXT NOT NULL, 
	attempt_id VARCHAR(32) NOT NULL, 
	size BIGINT NOT NULL, 
	mtime BIGINT NOT NULL, 
	type VARCHAR(128) NOT NULL, 
	sha256 VARCHAR(64), 
	place VARCHAR(16) NOT NULL, 
	CONSTRAINT pk_outputs PRIMARY KEY (run_id, path_hash), 
	CONSTRAINT fk_outputs_run_id FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "outputs" VALUES('up4myqy6qt5k','3431a5000108e849d9d7cb59f37df29e945da7e99e56eabd91582fadd5729537','out/model.pt','94f8830bdbbfa32b257a3a7f07c4c41c',5,1,'model',NULL,'agent');
CREATE TABLE run_after (
	run_id VARCHAR(12) NOT NULL, 
	after_id VARCHAR(12) NOT NULL, 
	CONSTRAINT pk_run_after PRIMARY KEY (run_id, after_id), 
	CONSTRAINT fk_run_after_run_id FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "run_after" VALUES('unizjiuv7hbg','7z76iw3my2az');
INSERT INTO "run_after" VALUES('meg3hjqtb6q7','6suqushyl4cf');
INSERT INTO "run_after" VALUES('meg3hjqtb6q7','up4myqy6qt5k');
CREATE TABLE run_tags (
	run_id VARCHAR(12) NOT NULL, 
	tag VARCHAR(200) NOT NULL, 
	CONSTRAINT pk_run_tags PRIMARY KEY (run_id, tag), 
	CONSTRAINT fk_run_tags_run_id FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "run_tags" VALUES('up4myqy6qt5k','baseline');
INSERT INTO "run_tags" VALUES('up4myqy6qt5k','naïve');
INSERT INTO "run_tags" VALUES('up4myqy6qt5k','late');
CREATE TABLE runs (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR(12) NOT NULL, 
	project TEXT NOT NULL, 
	name TEXT, 
	message TEXT NOT NULL, 
	user_name VARCHAR(128) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	ready SMALLINT NOT NULL, 
	priority_rank INTEGER NOT NULL, 
	not_before BIGINT, 
	stop_at BIGINT, 
	created_at BIGINT NOT NULL, 
	started_at BIGINT, 
	ended_at BIGINT, 
	epoch INTEGER NOT NULL, 
	attempt_id VARCHAR(32), 
	attempts INTEGER NOT NULL, 
	failures INTEGER NOT NULL, 
	losses INTEGER NOT NULL, 
	retries INTEGER NOT NULL, 
	requeue SMALLINT NOT NULL, 
	kill_at BIGINT, 
	kill_by VARCHAR(128), 
	kill_grace_s FLOAT, 
	resource_key VARCHAR(64) NOT NULL, 
	resources TEXT NOT NULL, 
	time_limit_s FLOAT, 
	spec TEXT NOT NULL, 
	spec_hash VARCHAR(64) NOT NULL, 
	command_text TEXT NOT NULL, 
	tree VARCHAR(64), 
	env_hash VARCHAR(64), 
	launch_id VARCHAR(32), 
	dir TEXT NOT NULL, 
	exit_code INTEGER, 
	signal INTEGER, 
	reason VARCHAR(32), 
	origin VARCHAR(16), 
	end_detail TEXT, 
	host_id VARCHAR(64), 
	sweep TEXT, 
	trashed_at BIGINT, 
	thinned_at BIGINT, 
	CONSTRAINT uq_runs_id UNIQUE (id)
);
INSERT INTO "runs" VALUES(1,'up4myqy6qt5k','digits','first','zero 00, no UTF-8 cafe9 ff, emoji 🧪, '' " \ % _
	tab edited','ada','finished',0,0,NULL,NULL,1800000000000000,1800000000000000,1800000002000000,1,'94f8830bdbbfa32b257a3a7f07c4c41c',1,0,0,0,1,NULL,NULL,NULL,'[null,1,null,null,null,null]','{"cpus":1}',NULL,'{"adopt":[],"also":[],"command":["python","train.py"],"cwd":"","fresh":false,"in_place":false,"links":[],"program":"/usr/bin/python3","pty":true,"pythonpath":[],"repo_name":"digits","rerun_of":null,"shell":false,"snapshot":{"branch":"main","commit":null,"dirty":false,"tree":"4b825dc642cb6eb9a060e54bf8d69288fbee4904"},"source":"/home/ada/digits"}','b3bd6fc64569add554daac779e5604401275b19cad056c7da462cfb1ad111b1f','python train.py','4b825dc642cb6eb9a060e54bf8d69288fbee4904','c463b4ca700bb2af5c97914f28f7670ed05ee8642be4ec97839a1b99d05349a0','f22ee4afdc03ffb6591207dd42bfe68b','runs/digits/20270115-0800-up4myqy6qt5k',0,NULL,'exited','user',NULL,'host-near',NULL,NULL,NULL);
INSERT INTO "runs" VALUES(2,'7z76iw3my2az','digits',NULL,'','ada','failed',0,-5,NULL,NULL,1800000002000000,1800000002000000,1800000002000000,2,'3f83daccf6a969991660b7efcbc2e51c',2,2,0,1,1,NULL,NULL,NULL,'[null,null,null,null,null,60500000]','{}',60.5,'{"adopt":[],"also":[],"command":["python","train.py"],"cwd":"","fresh":false,"in_place":false,"links":[],"program":"/usr/bin/python3","pty":true,"pythonpath":[],"repo_name":"digits","rerun_of":null,"shell":false,"snapshot":{"branch":"main","commit":null,"dirty":false,"tree":"4b825dc642cb6eb9a060e54bf8d69288fbee4904"},"source":"/home/ada/digits"}','f72bee7a1d88ad3ac11c4eb108a571aaf12a3a8ff0eea56117e0a7c6dfd3f6a1','python train.py','4b825dc642cb6eb9a060e54bf8d69288fbee4904',NULL,NULL,'runs/digits/20270115-0800-7z76iw3my2az',3,NULL,'exited','user',NULL,'host-near',NULL,NULL,NULL);
INSERT INTO "runs" VALUES(3,'unizjiuv7hbg','digits',NULL,'depends on a failed one','ada','failed',0,0,NULL,NULL,1800000002000000,NULL,1800000002000000,0,NULL,0,0,0,0,1,NULL,NULL,NULL,'[null,null,null,null,null,null]','{}',NULL,'{"adopt":[],"also":[],"command":["python","train.py"],"cwd":"","fresh":false,"in_place":false,"links":[],"program":"/usr/bin/python3","pty":true,"pythonpath":[],"repo_name":"digits","rerun_of":null,"shell":false,"snapshot":{"branch":"main","commit":null,"dirty":false,"tree":"4b825dc642cb6eb9a060e54bf8d69288fbee4904"},"source":"/home/ada/digits"}','f63cba19e441d3c3339486eaa16cbf661afdff83b6cbacc0c50477b1d0fdaf0a','python train.py','4b825dc642cb6eb9a060e54bf8d69288fbee4904',NULL,NULL,'runs/digits/20270115-0800-unizjiuv7hbg',NULL,NULL,'dependency_failed','scheduler',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "runs" VALUES(4,'5qndnqnwqf3u','digits',NULL,'requeued once','ada','failed',0,0,NULL,NULL,1800000002000000,1800000002000000,1800000002000000,2,'75b4b527ab78cba6616a85d32d868dd1',2,1,1,0,1,NULL,NULL,NULL,'[null,null,null,null,null,null]','{}',NULL,'{"adopt":[],"also":[],"command":["python","train.py"],"cwd":"","fresh":false,"in_place":false,"links":[],"program":"/usr/bin/python3","pty":true,"pythonpath":[],"repo_name":"digits","rerun_of":null,"shell":false,"snapshot":{"branch":"main","commit":null,"dirty":false,"tree":"4b825dc642cb6eb9a060e54bf8d69288fbee4904"},"source":"/home/ada/digits"}','24ffb1ab6946e59114046af12c94b9135e99a0c45b1110ff518c18e598ec1086','python train.py','4b825dc642cb6eb9a060e54bf8d69288fbee4904',NULL,NULL,'runs/digits/20270115-0800-5qndnqnwqf3u',NULL,11,'signaled','user',NULL,'host-near',NULL,NULL,NULL);
INSERT INTO "runs" VALUES(5,'muaqmtx6s6fg','digits',NULL,'killed while it waits','ada','killed',0,0,NULL,NULL,1800000002000000,NULL,1800000002000000,0,NULL,0,0,0,0,1,NULL,NULL,NULL,'[null,null,null,null,null,null]','{}',NULL,'{"adopt":[],"also":[],"command":["python","train.py"],"cwd":"","fresh":false,"in_place":false,"links":[],"program":"/usr/bin/python3","pty":true,"pythonpath":[],"repo_name":"digits","rerun_of":null,"shell":false,"snapshot":{"branch":"main","commit":null,"dirty":false,"tree":"4b825dc642cb6eb9a060e54bf8d69288fbee4904"},"source":"/home/ada/digits"}','d0bcdbecf319e8927e99abd781df18b819e1e2e85ab2ead57ce53b993803ddd3','python train.py','4b825dc642cb6eb9a060e54bf8d69288fbee4904',NULL,NULL,'runs/digits/20270115-0800-muaqmtx6s6fg',NULL,NULL,'stopped','human',NULL,NULL,NULL,1800000002000000,NULL);
INSERT INTO "runs" VALUES(6,'ilfzdb3ac4gh','digits',NULL,'the host is away','ada','lost',0,0,NULL,NULL,1800000002000000,1800000002000000,NULL,1,'3421757c83e56d6d52c29f6c3ff3e449',1,0,0,0,1,NULL,NULL,NULL,'[1,null,1073741824,null,"host-far",null]','{"gpus":1,"host":"host-far","mem":1073741824}',NULL,'{"adopt":[],"also":[],"command":["python","train.py"],"cwd":"","fresh":false,"in_place":false,"links":[],"program":"/usr/bin/python3","pty":true,"pythonpath":[],"repo_name":"digits","rerun_of":null,"shell":false,"snapshot":{"branch":"main","commit":null,"dirty":false,"tree":"4b825dc642cb6eb9a060e54bf8d69288fbee4904"},"source":"/home/ada/digits"}','4076ae16c1713ab10b94a42072d3c3532945a454f45bffba9db015ffdf503045','python train.py','4b825dc642cb6eb9a060e54bf8d69288fbee4904',NULL,NULL,'runs/digits/20270115-0800-ilfzdb3ac4gh',NULL,NULL,NULL,NULL,NULL,'host-far',NULL,NULL,NULL);
INSERT INTO "runs" VALUES(7,'6suqushyl4cf','digits',NULL,'goes on','ada','running',0,0,NULL,NULL,1800000157000000,1800000157000000,NULL,1,'a15f51160a5a94a23fe94b8af91f0bab',1,0,0,0,1,NULL,NULL,NULL,'[2,null,null,null,null,null]','{"gpus":2}',NULL,'{"adopt":[],"also":[],"command":["python","train.py"],"cwd":"","fresh":false,"in_place":false,"links":[],"program":"/usr/bin/python3","pty":true,"pythonpath":[],"repo_name":"digits","rerun_of":null,"shell":false,"snapshot":{"branch":"main","commit":null,"dirty":false,"tree":"4b825dc642cb6eb9a060e54bf8d69288fbee4904"},"source":"/home/ada/digits"}','901a220ea9a5a457972133b4b8754905b25eaeb8e333fc529d7135689561404c','python train.py','4b825dc642cb6eb9a060e54bf8d69288fbee4904',NULL,NULL,'runs/digits/20270115-0802-6suqushyl4cf',NULL,NULL,NULL,NULL,NULL,'host-near',NULL,NULL,NULL);
INSERT INTO "runs" VALUES(8,'meg3hjqtb6q7','digits',NULL,'waits for another','ada','queued',0,0,NULL,NULL,1800000157000000,NULL,NULL,0,NULL,0,0,0,0,1,NULL,NULL,NULL,'[null,null,null,null,null,null]','{}',NULL,'{"adopt":[],"also":[],"command":["python","train.py"],"cwd":"","fresh":false,"in_place":false,"links":[],"program":"/usr/bin/python3","pty":true,"pythonpath":[],"repo_name":"digits","rerun_of":null,"shell":false,"snapshot":{"branch":"main","commit":null,"dirty":false,"tree":"4b825dc642cb6eb9a060e54bf8d69288fbee4904"},"source":"/home/ada/digits"}','da50d1f5f31ceaa4cecd1b3c4d73b73280d7fe236e0bb5ff496b5c4c314c6873','python train.py','4b825dc642cb6eb9a060e54bf8d69288fbee4904',NULL,NULL,'runs/digits/20270115-0802-meg3hjqtb6q7',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "runs" VALUES(9,'gjbaynrm5aaa','digits',NULL,'held','ada','held',0,0,NULL,NULL,1800000157000000,NULL,NULL,0,NULL,0,0,0,0,1,NULL,NULL,NULL,'[null,null,null,null,null,null]','{}',NULL,'{"adopt":[],"also":[],"command":["python","train.py"],"cwd":"","fresh":false,"in_place":false,"links":[{"path":"data","target":"/data","why":"ignored data"}],"program":"/usr/bin/python3","pty":true,"pythonpath":[],"repo_name":"digits","rerun_of":null,"shell":false,"snapshot":{"branch":"main","commit":null,"dirty":false,"tree":"4b825dc642cb6eb9a060e54bf8d69288fbee4904"},"source":"/home/ada/digits"}','674aab6234a408f24998e73bfc81863648047239bd1c1f744645318f093d5f85','python train.py','4b825dc642cb6eb9a060e54bf8d69288fbee4904',NULL,NULL,'runs/digits/20270115-0802-gjbaynrm5aaa',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE slot_use (
	slot_id VARCHAR(200) NOT NULL, 
	attempt_id VARCHAR(32) NOT NULL, 
	CONSTRAINT pk_slot_use PRIMARY KEY (slot_id), 
	CONSTRAINT fk_slot_use_attempt_id FOREIGN KEY(attempt_id) REFERENCES attempts (id) ON DELETE CASCADE
);
INSERT INTO "slot_use" VALUES('host-far:gpu0','3421757c83e56d6d52c29f6c3ff3e449');
INSERT INTO "slot_use" VALUES('host-near:gpu0','a15f51160a5a94a23fe94b8af91f0bab');
INSERT INTO "slot_use" VALUES('host-near:gpu1','a15f51160a5a94a23fe94b8af91f0bab');
CREATE TABLE slots (
	id VARCHAR(200) NOT NULL, 
	host_id VARCHAR(64) NOT NULL, 
	name VARCHAR(128) NOT NULL, 
	kind VARCHAR(8) NOT NULL, 
	position INTEGER NOT NULL, 
	uuid VARCHAR(128), 
	model TEXT, 
	mem BIGINT, 
	threads INTEGER NOT NULL, 
	free SMALLINT NOT NULL, 
	why TEXT NOT NULL, 
	present SMALLINT NOT NULL, 
	CONSTRAINT pk_slots PRIMARY KEY (id), 
	CONSTRAINT fk_slots_host_id FOREIGN KEY(host_id) REFERENCES hosts (id) ON DELETE CASCADE
);
INSERT INTO "slots" VALUES('host-near:gpu0','host-near','gpu0','gpu',0,'GPU-host-near-0','NVIDIA A100',42949672960,1,1,'',1);
INSERT INTO "slots" VALUES('host-near:gpu1','host-near','gpu1','gpu',1,'GPU-host-near-1','NVIDIA A100',42949672960,1,1,'',1);
INSERT INTO "slots" VALUES('host-near:cpu0','host-near','cpu0','cpu',0,NULL,NULL,NULL,1,1,'',1);
INSERT INTO "slots" VALUES('host-near:cpu1','host-near','cpu1','cpu',1,NULL,NULL,NULL,1,1,'',1);
INSERT INTO "slots" VALUES('host-near:cpu2','host-near','cpu2','cpu',2,NULL,NULL,NULL,1,1,'',1);
INSERT INTO "slots" VALUES('host-near:cpu3','host-near','cpu3','cpu',3,NULL,NULL,NULL,1,1,'',1);
INSERT INTO "slots" VALUES('host-near:cpu4','host-near','cpu4','cpu',4,NULL,NULL,NULL,1,1,'',1);
INSERT INTO "slots" VALUES('host-near:cpu5','host-near','cpu5','cpu',5,NULL,NULL,NULL,1,1,'',1);
INSERT INTO "slots" VALUES('host-near:cpu6','host-near','cpu6','cpu',6,NULL,NULL,NULL,1,1,'',1);
INSERT INTO "slots" VALUES('host-near:cpu7','host-near','cpu7','cpu',7,NULL,NULL,NULL,1,1,'',1);
INSERT INTO "slots" VALUES('host-far:gpu0','host-far','gpu0','gpu',0,'GPU-host-far-0','NVIDIA A100',42949672960,1,1,'',1);
CREATE TABLE tokens (
	name VARCHAR(128) NOT NULL, 
	secret_hash VARCHAR(64) NOT NULL, 
	scope VARCHAR(16) NOT NULL, 
	user_name VARCHAR(128) NOT NULL, 
	created_at BIGINT NOT NULL, 
	expires_at BIGINT, 
	used_at BIGINT, 
	CONSTRAINT pk_tokens PRIMARY KEY (name), 
	CONSTRAINT uq_tokens_secret_hash UNIQUE (secret_hash)
);
INSERT INTO "tokens" VALUES('laptop','9eba9c992938cfd1e6cbdbbe7dcc9d5192b49bc119d20823145d51b510fe038a','agent','ada',1800000157000000,NULL,NULL);
CREATE TABLE users (
	name VARCHAR(128) NOT NULL, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_users PRIMARY KEY (name)
);
INSERT INTO "users" VALUES('ada',1800000000000000);
CREATE INDEX ix_events_run ON events (run_id, id);
CREATE INDEX ix_runs_launch ON runs (launch_id, ended_at) WHERE ended_at IS NULL;
CREATE INDEX ix_runs_queue ON runs (state, ready, priority_rank, seq);
CREATE INDEX ix_runs_trashed ON runs (trashed_at) WHERE trashed_at IS NOT NULL;
CREATE INDEX ix_attempts_agent ON attempts (agent_id, active);
CREATE INDEX ix_attempts_lease ON attempts (active, lease_until);
CREATE INDEX ix_outputs_unhashed ON outputs (sha256, place);
CREATE INDEX ix_run_after_after ON run_after (after_id);
CREATE INDEX ix_run_tags_tag ON run_tags (tag);
CREATE INDEX ix_slots_host ON slots (host_id);
CREATE INDEX ix_slot_use_attempt ON slot_use (attempt_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('runs',9);
INSERT INTO "sqlite_sequence" VALUES('events',40);
COMMIT;
