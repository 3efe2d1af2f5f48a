-- All that a Snowflake account needs to run ML jobs from Airflow.
--
-- Run it once as ACCOUNTADMIN; it can be repeated. Change the names to yours: database ML, schema ML.PUBLIC, stage
-- ML_PAYLOADS, compute pool ML_POOL, warehouse ML_WH, role ML_RUNNER, user AIRFLOW.
-- `airflow mljobs doctor` checks the result, and --run runs a tiny job.
-- A statement behind `--` without a space is for what some jobs need: remove the two dashes.

USE ROLE ACCOUNTADMIN;

-- The role of all jobs, and the user of the Airflow connection. Jobs run with this role: give it the rights on tables
-- that they need. https://docs.snowflake.com/en/user-guide/key-pair-auth makes the key.
CREATE ROLE IF NOT EXISTS ML_RUNNER;
CREATE USER IF NOT EXISTS AIRFLOW TYPE = SERVICE DEFAULT_ROLE = ML_RUNNER RSA_PUBLIC_KEY = '<public key>';
GRANT ROLE ML_RUNNER TO USER AIRFLOW;
-- Administrators see all jobs, but end and drop them only if the owning role is granted to theirs.
GRANT ROLE ML_RUNNER TO ROLE SYSADMIN;

-- The warehouse of the connection: the job history, logs and metrics are queries. Name it in the connection.
CREATE WAREHOUSE IF NOT EXISTS ML_WH WAREHOUSE_SIZE = XSMALL AUTO_SUSPEND = 60;
GRANT USAGE ON WAREHOUSE ML_WH TO ROLE ML_RUNNER;

-- Where jobs are created. Name database and schema in the connection.
CREATE DATABASE IF NOT EXISTS ML;
CREATE SCHEMA IF NOT EXISTS ML.PUBLIC;
GRANT USAGE ON DATABASE ML TO ROLE ML_RUNNER;
GRANT USAGE, CREATE SERVICE ON SCHEMA ML.PUBLIC TO ROLE ML_RUNNER;

-- The stage for code and results. A stage keeps the encryption that it was made with.
CREATE STAGE IF NOT EXISTS ML.PUBLIC.ML_PAYLOADS ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE');
GRANT READ, WRITE ON STAGE ML.PUBLIC.ML_PAYLOADS TO ROLE ML_RUNNER;

-- The machines. USAGE runs jobs and, by Snowflake's documentation, shows the pool; MONITOR shows how busy it is.
CREATE COMPUTE POOL IF NOT EXISTS ML_POOL MIN_NODES = 1 MAX_NODES = 4 INSTANCE_FAMILY = CPU_X64_S;
GRANT USAGE, MONITOR ON COMPUTE POOL ML_POOL TO ROLE ML_RUNNER;

-- Snowflake's images can be pulled only in an account that has an image repository; this one may stay empty.
CREATE IMAGE REPOSITORY IF NOT EXISTS ML.PUBLIC.ML_IMAGES;

-- Logs and metrics of ended jobs, from Snowflake's default event table.
GRANT APPLICATION ROLE SNOWFLAKE.EVENTS_VIEWER TO ROLE ML_RUNNER;

-- Check that the account allows what runs in its compute pools: jobs are of type USER, with managed=True of type ML_JOB.
-- https://docs.snowflake.com/en/developer-guide/snowpark-container-services/working-with-services
SHOW PARAMETERS LIKE '%SPCS_WORKLOAD_TYPES' IN ACCOUNT;

-- Only for a pool with AUTO_RESUME = FALSE that the DAG resumes and suspends: a job doesn't resume such a pool.
--GRANT OPERATE ON COMPUTE POOL ML_POOL TO ROLE ML_RUNNER;

-- Only for pip_requirements= and git sources: access to the internet, by name in external_access_integrations=.
--CREATE NETWORK RULE ML.PUBLIC.PYPI TYPE = HOST_PORT MODE = EGRESS VALUE_LIST = ('pypi.org', 'files.pythonhosted.org');
--CREATE EXTERNAL ACCESS INTEGRATION PYPI_ACCESS ALLOWED_NETWORK_RULES = (ML.PUBLIC.PYPI) ENABLED = TRUE;
--GRANT USAGE ON INTEGRATION PYPI_ACCESS TO ROLE ML_RUNNER;

-- Only for secrets=: each secret by its name.
--GRANT READ ON SECRET ML.PUBLIC.API_KEY TO ROLE ML_RUNNER;

-- Only for images of your own.
--GRANT READ ON IMAGE REPOSITORY ML.PUBLIC.ML_IMAGES TO ROLE ML_RUNNER;

-- Only for endpoints that are public.
--GRANT BIND SERVICE ENDPOINT ON ACCOUNT TO ROLE ML_RUNNER;

-- Only for another role that looks at these jobs, such as that of a connection of the page or of `airflow mljobs list`.
-- Only the owner of a job sees its specification, and drops it.
--CREATE ROLE IF NOT EXISTS ML_VIEWER;
--GRANT USAGE ON DATABASE ML TO ROLE ML_VIEWER;
--GRANT USAGE ON SCHEMA ML.PUBLIC TO ROLE ML_VIEWER;
--GRANT MONITOR ON ALL SERVICES IN SCHEMA ML.PUBLIC TO ROLE ML_VIEWER;
--GRANT MONITOR ON FUTURE SERVICES IN SCHEMA ML.PUBLIC TO ROLE ML_VIEWER;
