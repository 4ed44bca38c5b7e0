name 'runlock'
version '0.1.0'
description 'Puts each run of chef-client under the lock of its group'
chef_version '>= 15.0'
